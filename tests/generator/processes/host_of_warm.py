"""A host for tests of the warm process, in a process of its own: the tests' process has threads and must not be forked.

It reads commands from its standard input, one a line, and writes what it hears, one a line:

    fork ROLE    forked PID    ROLE PID PARENT, from the new process
    say N TEXT   sends TEXT to the Nth process
    stop         ends without another word

With the argument "interrupted", the end of a process interrupts every message of the warm process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from mien_generator.link import Link, LinkClosed
from mien_generator.processes import warm as warm_process
from mien_generator.processes.messages import Ended, Fork, Forked, Role, Stop, WorkerStart, parse


class Interrupted(Link):
    """A link whose every message is interrupted by a signal, once it has its lock."""

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        self._sending = _InterruptedLock()  # type: ignore[assignment]
        super().send(message, descriptors)


class _InterruptedLock:
    _is_taken = False

    def __enter__(self) -> None:
        assert not _InterruptedLock._is_taken, "a message is sent in the middle of another"
        _InterruptedLock._is_taken = True
        os.kill(os.getpid(), signal.SIGCHLD)

    def __exit__(self, *_: object) -> None:
        _InterruptedLock._is_taken = False


def tell(text: str) -> None:
    """Write a line at once, as one write: several processes write to the same pipe."""
    os.write(1, f"{text}\n".encode())


def main_of(role: Role, link: Link, start: WorkerStart | None) -> None:
    """What a forked process does: it says who it is, and does what its host says until the host ends."""
    signals = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT)]
    is_deaf = signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL and not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    tell(f"{role} {os.getpid()} {os.getppid()} {all(signals) and is_deaf} {start is None} {threading.active_count()}")
    try:
        while True:
            message, _ = link.receive()
            match message:
                case b"end":
                    return
                case b"fail":
                    raise ValueError("a process of a test fails")
                case b"exit":
                    sys.exit(7)
                case b"die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    link.send(message[::-1])
    except LinkClosed:
        tell(f"gone {os.getpid()}")


def hear_warm(warm: Link) -> None:
    try:
        while True:
            match parse(warm.receive()[0]):
                case Forked(pid=pid):
                    tell(f"forked {pid}")
                case Ended(pid=pid, status=status):
                    tell(f"ended {pid} {status}")
    except LinkClosed:
        tell("warm gone")


def hear_process(link: Link) -> None:
    try:
        while True:
            tell(f"answer {link.receive()[0].decode()}")
    except LinkClosed:
        tell("closed")


def main() -> None:
    if "interrupted" in sys.argv:
        setattr(warm_process, "Link", Interrupted)  # noqa: B010 - mypy knows no other way
    warm = warm_process.start_warm(
        {
            "worker": lambda link, start: main_of("worker", link, start),
            "device": lambda link, start: main_of("device", link, start),
        }
    )
    threading.Thread(target=hear_warm, args=(warm,), daemon=True).start()
    links: list[Link] = []
    for line in sys.stdin:
        match line.split():
            case ["fork", "worker" | "device" as role]:
                ours, theirs = Link.pair()
                with theirs:
                    warm.send(Fork(role=role).to_bytes(), [theirs.fileno()])
                links.append(ours)
                threading.Thread(target=hear_process, args=(ours,), daemon=True).start()
            case ["say", index, text]:
                links[int(index)].send(text.encode())
            case ["nonsense"]:
                warm.send(Stop().to_bytes())
            case ["stop"]:
                break
    os._exit(0)


if __name__ == "__main__":
    main()
