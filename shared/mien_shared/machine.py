"""What a process may know about the machine that it runs on: its cores and its processor. Linux and macOS."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")
_SYSCTL_TIMEOUT_S = 5.0


def usable_cores(quota_file: Path = _CGROUP_QUOTA) -> float:
    """The number of cores that this process may use: those of its affinity, or its control group's quota if lower.

    macOS has neither: there it is the number of all cores.
    """
    cores = float(_affinity() or os.cpu_count() or 1)
    try:
        quota, period = quota_file.read_text().split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no control group, or the file of an older version
        return cores


def _affinity() -> int:
    """The number of cores in this process's affinity; 0 where the system has none."""
    # Not by name: type checkers for macOS know that os lacks it there.
    affinity = getattr(os, "sched_getaffinity", None)
    try:
        return len(affinity(0)) if affinity else 0
    except OSError:  # a sandbox may forbid the call
        return 0


def processor_name(system: str = sys.platform, cpu_info: Path = _CPU_INFO) -> str:
    """The processor's model, or else its architecture. For telling machines apart, not for parsing.

    system: a value of sys.platform.
    """
    return (_sysctl_brand() if system == "darwin" else _model_in(cpu_info)) or platform.machine()


def _model_in(cpu_info: Path) -> str:
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return ""
    # An ARM kernel names no model.
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _sysctl_brand() -> str:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SYSCTL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
