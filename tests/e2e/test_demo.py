"""`mien demo`, run as a command as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import pytest

pytestmark = pytest.mark.e2e

MIEN = [sys.executable, "-m", "mien_client"]
FREE_PORTS = ["--port", "0", "--signaling-port", "0"]


def descendants(pid: int) -> set[int]:
    """All descendant processes, from /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def wait_until_gone(pids: set[int], within_s: float) -> set[int]:
    """Wait until the processes have ended. Returns those that still run after `within_s`; a zombie counts as ended."""
    deadline_s = time.monotonic() + within_s

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    while (left := {pid for pid in pids if alive(pid)}) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return left


@contextmanager
def running_demo() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo that has printed the address of its page, and that address."""
    with subprocess.Popen([*MIEN, "demo", *FREE_PORTS], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            page = re.search(r"http://\S+", line)
            assert page, line + process.stderr.read()
            yield process, page[0]
        finally:
            process.kill()


def test_it_prints_a_page_with_a_live_session_and_ctrl_c_ends_everything() -> None:
    with running_demo() as (process, page):
        url, _, session_id = page.partition("/#session=")
        sessions = httpx.get(f"{url}/v1/sessions", trust_env=False).json()["sessions"]
        assert [session["session_id"] for session in sessions] == [session_id]
        assert httpx.get(url, trust_env=False).is_success
        started = descendants(process.pid)
        assert len(started) >= 4, "three services and a Redis"
        process.send_signal(signal.SIGINT)
        assert process.wait(3.0) == 130
        assert not wait_until_gone(started, 0.5)


def test_a_demo_that_is_killed_leaves_nothing_behind() -> None:
    with running_demo() as (process, _):
        started = descendants(process.pid)
        process.kill()
        assert not wait_until_gone(started, 5.0)


def test_it_records_what_a_viewer_received(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    command = [*MIEN, "demo", *FREE_PORTS, "--seconds", "3", "--record", str(out), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(result.stdout)
    assert (report["width"], report["height"]) == (1280, 720)
    assert report["frames"] > 30
    assert 0 < report["latency_ms_p50"] <= report["latency_ms_p99"]
    assert 25 < report["uplink_kbit_s"] < 36
    assert report["downlink_kbit_s"] > 50
    assert sum(report["tier_seconds"].values()) >= 1
    with av.open(str(out)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
        assert container.streams.video[0].width == 1280
    assert pictures >= report["frames"] - 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--avatar", "nowhere.jpg"], "there is no picture file nowhere.jpg, and it is not an avatar id"),
        (["demo", "--avatar", "nobody"], "(404 avatar-not-found)"),
        (["demo", "--motion", os.path.join("tests", "e2e", "test_demo.py")], "a motion track is one or more packets"),
        (["watch", "http://127.0.0.1:9/v1/whep/x"], "http://127.0.0.1:9/v1/whep/x does not answer"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], says: str) -> None:
    command = [*MIEN, *arguments] + (FREE_PORTS if arguments[0] == "demo" else [])
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert says in result.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with running_demo() as (_, page):
        port = httpx.URL(page.partition("/#")[0]).port
        result = subprocess.run(
            [*MIEN, "up", "--port", str(port)], capture_output=True, text=True, timeout=30, check=False
        )
    assert result.returncode == 1
    assert f"port {port}, which gateway needs, is already in use: choose another" in result.stderr
