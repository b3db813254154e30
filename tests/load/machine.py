"""The CPU time and memory of processes, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(BaseModel):
    """One process during one measurement. cores: CPU seconds per second. rss_mib: resident memory at its end."""

    cores: float
    rss_mib: float


@dataclass(frozen=True)
class Snapshot:
    """CPU seconds that each process has used so far, by name. at_s: when they were read, monotonic."""

    cpu_s: Mapping[str, float]
    at_s: float


def snapshot(pids: Mapping[str, int], now_s: float) -> Snapshot:
    return Snapshot({name: _cpu_s(pid) for name, pid in pids.items()}, now_s)


def usage(before: Snapshot, pids: Mapping[str, int], now_s: float) -> dict[str, Usage]:
    """The usage of each process since `before`."""
    elapsed_s = now_s - before.at_s
    return {
        name: Usage(cores=round((_cpu_s(pid) - before.cpu_s[name]) / elapsed_s, 3), rss_mib=round(_rss_mib(pid), 1))
        for name, pid in pids.items()
    }


def load_average() -> float:
    """The machine's load average over the last minute, from all processes."""
    return round(os.getloadavg()[0], 2)


def describe() -> str:
    """A description of this machine in one line."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    model = next((name for name in models if name not in {"", "unknown"}), os.uname().machine)
    return f"{os.cpu_count()} cores, {model}"


def _cpu_s(pid: int) -> float:
    """User and system time of all threads (fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
