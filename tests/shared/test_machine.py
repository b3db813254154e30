"""What is known about the machine, also where the operating system lacks what Linux has."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mien_shared.machine import processor_name, usable_cores


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / "nothing"


def affinity(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)


def test_there_is_a_core_to_use() -> None:
    assert usable_cores() > 0


def test_affinity_counts_where_there_is_no_quota(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    affinity(monkeypatch, 3)
    assert usable_cores(nowhere) == 3


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 4.0),
        ("150000 100000\n", 1.5),
        ("800000 100000\n", 4.0),
        ("", 4.0),
        ("100000\n", 4.0),
        ("many 100000\n", 4.0),
        ("100000 0\n", 4.0),
    ],
)
def test_a_quota_counts_if_it_is_lower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, cores: float
) -> None:
    affinity(monkeypatch, 4)
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores(nowhere) == 8


def test_a_machine_that_does_not_know_its_cores_has_one(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(nowhere) == 1


def test_a_sandbox_that_forbids_affinity_gives_all_cores(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    def forbidden(process: int) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", forbidden, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores(nowhere) == 8


def test_linux_names_the_model(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Quick CPU @ 3 GHz\n")
    assert processor_name("linux", tmp_path / "cpuinfo") == "Quick CPU @ 3 GHz"


@pytest.mark.parametrize("content", [None, "processor\t: 0\n"])
def test_linux_without_a_model_names_the_architecture(tmp_path: Path, content: str | None) -> None:
    if content is not None:  # None: /proc is not mounted
        (tmp_path / "cpuinfo").write_text(content)
    assert processor_name("linux", tmp_path / "cpuinfo") == platform.machine()


def test_macos_asks_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command == ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, "Apple M3 Pro\n", "")

    monkeypatch.setattr(subprocess, "run", sysctl)
    assert processor_name("darwin") == "Apple M3 Pro"


@pytest.mark.skipif(sys.platform == "darwin", reason="this system has the program")
def test_without_sysctl_it_is_the_architecture() -> None:
    assert processor_name("darwin") == platform.machine()
