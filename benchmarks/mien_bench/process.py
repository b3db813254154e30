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
    """User and system time of a process so far (proc(5), fields 14 and 15). Raises NoProcessFigures."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds (proc(5), statm field 2). Raises NoProcessFigures."""
    return int(_proc(pid, "statm").split()[1]) * os.sysconf("SC_PAGESIZE")


def _proc(pid: int, name: str) -> str:
    if not Path("/proc").is_dir():
        raise NoProcessFigures
    return Path(f"/proc/{pid}/{name}").read_text()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
