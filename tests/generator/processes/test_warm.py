"""The warm process: forks workers and the device, tells how they ended, and ends with its host. All real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

HOST = Path(__file__).with_name("host_of_warm.py")
PATIENCE_S = 60.0


class Host:
    """A host in a process of its own, and the lines that it and all processes below it have written."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HOST), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: Queue[str | None] = Queue()
        self._read: list[str] = []
        self._reader = Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)  # every process that has this pipe open has ended

    def order(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def line(self, *words: str) -> list[str]:
        """Wait for the next line that begins so. Returns its further words. Other lines are kept for later."""
        begin = list(words)
        for line in self._read:
            if line.split()[: len(begin)] == begin:
                self._read.remove(line)
                return line.split()[len(begin) :]
        while (new := self._lines.get(timeout=PATIENCE_S)) is not None:
            if new.split()[: len(begin)] == begin:
                return new.split()[len(begin) :]
            self._read.append(new)
        raise AssertionError(f"all processes have ended without {begin}, after {self._read}")

    def fork(self, role: str) -> tuple[int, list[str]]:
        """Fork a process. Returns its number, and what it says of itself."""
        self.order(f"fork {role}")
        (pid,) = self.line("forked")
        return int(pid), self.line(role, pid)

    def rest(self) -> list[str]:
        """Wait until the host and every process below it have ended. Returns the lines that were not read."""
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self._read.append(line)
        return self._read

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # also processes that should have ended and have not
        self._reader.join(PATIENCE_S)
        self.process.communicate()


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host(*getattr(request, "param", ()))
    yield host
    host.close()


def test_processes_are_forked_by_role_and_their_ends_are_told(host: Host) -> None:
    worker, (parent, *of_worker) = host.fork("worker")
    device, (parent_of_device, *of_device) = host.fork("device")
    assert parent == parent_of_device, "the warm process is the parent of both"
    assert int(parent) not in {host.process.pid, worker, device}
    for is_as_new, is_without_start, threads in (of_worker, of_device):
        assert is_as_new == "True", "it ignores the signals of a terminal and waits for its own children"
        assert (is_without_start, threads) == ("True", "1")
    host.order("say 0 abc")
    assert host.line("answer") == ["cba"]
    host.order("say 1 xyz")
    assert host.line("answer") == ["zyx"], "each has a link of its own"

    host.order("say 0 end")
    assert host.line("ended", str(worker)) == ["0"]
    assert host.line("closed") == []
    for number, (command, status) in enumerate([("fail", "1"), ("exit", "1"), ("die", "-9")], start=2):
        pid, _ = host.fork("worker")
        host.order(f"say {number} {command}")
        assert host.line("ended", str(pid)) == [status]
        assert host.line("closed") == [], "nothing keeps a dead process' link open"
    host.order("say 1 again")
    assert host.line("answer") == ["niaga"], "the device has noticed nothing"

    os.kill(device, signal.SIGTERM)
    os.kill(int(parent), signal.SIGINT)
    host.order("say 1 there")
    assert host.line("answer") == ["ereht"], "only the host obeys signals"
    os.kill(device, signal.SIGKILL)
    assert host.line("ended", str(device)) == ["-9"]

    late, _ = host.fork("device")
    host.order("stop")
    assert f"gone {late}" in host.rest(), "it ends with its host"
    assert host.process.wait(PATIENCE_S) == 0


def test_the_death_of_the_host_ends_the_warm_process_and_all_others(host: Host) -> None:
    started = [host.fork(role)[0] for role in ("worker", "device", "worker")]
    host.process.kill()
    rest = host.rest()
    assert sorted(rest) == sorted(f"gone {pid}" for pid in started)


def test_many_processes_at_once_end_and_each_is_told(host: Host) -> None:
    """The end of one is told while the next one ends."""
    count = 20
    for _ in range(count):
        host.order("fork worker")
    pids = {host.line("forked")[0] for _ in range(count)}
    for number in range(count):
        host.order(f"say {number} {'end' if number % 2 else 'die'}")
    ended = [host.line("ended") for _ in range(count)]
    assert {pid for pid, _ in ended} == pids
    assert sorted(status for _, status in ended) == ["-9"] * (count // 2) + ["0"] * (count // 2)
    closed = [host.line("closed") for _ in range(count)]
    assert len(closed) == count
    assert str(host.fork("device")[0]) not in pids, "it forks as before"


@pytest.mark.parametrize("host", [("interrupted",)], indirect=True)
def test_a_process_that_ends_while_the_end_of_another_is_told_interrupts_no_message(host: Host) -> None:
    workers, (parent, *_) = [host.fork("worker")[0] for _ in range(2)], host.fork("device")[1]
    os.kill(int(parent), signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert [host.line("closed"), host.line("closed")] == [[], []]
    os.kill(int(parent), signal.SIGCONT)
    for pid in workers:
        assert host.line("ended", str(pid)) == ["-9"]
    assert host.fork("worker")[0] not in workers, "it forks as before"


def test_the_death_of_the_warm_process_is_told_and_leaves_the_others(host: Host) -> None:
    _, (parent, *_) = host.fork("worker")
    os.kill(int(parent), signal.SIGKILL)
    assert host.line("warm", "gone") == []
    host.order("say 0 abc")
    assert host.line("answer") == ["cba"]


def test_a_message_that_is_no_order_ends_the_warm_process_with_a_log(host: Host) -> None:
    host.order("nonsense")
    assert host.line("warm", "gone") == []
    host.order("stop")
    assert host.rest() == []
    assert host.process.stderr is not None
    assert "the host sent stop" in host.process.stderr.read()
