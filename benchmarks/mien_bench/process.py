"""What a process costs, and the port that it listens on."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click


class NoProcessFigures(click.ClickException):
    """This system has no /proc, from which a process's costs are read."""

    def __init__(self) -> None:
        super().__init__("this benchmark reads /proc, which only Linux has")


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and of those that it has started. Raises NoProcessFigures."""
    ticks = 0
    for process in family(pid):
        fields = _proc(process, "stat").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5), fields 14 and 15
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Memory of a process and of those that it has started; pages that they share count once. Raises NoProcessFigures.

    The proportional set size (proc(5), smaps_rollup): a page that is shared with other processes counts in part.
    """
    lines = [line for process in family(pid) for line in _proc(process, "smaps_rollup").splitlines()]
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def family(pid: int) -> list[int]:
    """A process, those that it has started, and those that they have started. Raises NoProcessFigures."""
    children = [int(child) for task in _tasks(pid) for child in _proc(pid, f"task/{task}/children").split()]
    return [pid, *(one for child in children for one in family(child))]


def _tasks(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/task") if Path("/proc").is_dir() else [str(pid)]


def _proc(pid: int, name: str) -> str:
    if not Path("/proc").is_dir():
        raise NoProcessFigures
    return Path(f"/proc/{pid}/{name}").read_text()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
