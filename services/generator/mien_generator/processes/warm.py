"""The warm process: it has imported everything and runs nothing, so a copy of it is a worker within milliseconds.

The host forks it before it starts threads or an event loop, because a copy of a process with threads may hang. The
warm process forks workers and the device when the host asks for them, and tells how they ended. What they have all
imported is in memory once.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from mien_generator.link import Link, LinkClosed
from mien_generator.processes.messages import Ended, Fork, Forked, Role, WorkerStart, parse

logger = logging.getLogger(__name__)

#: Runs a forked process until its end.
Main = Callable[[Link, WorkerStart | None], None]


def start_warm(mains: Mapping[Role, Main]) -> Link:
    """Fork the warm process. Call it in the host before any thread is started. Returns the host's link to it."""
    ours, theirs = socket.socketpair()
    gc.collect()
    gc.freeze()  # otherwise the next collection in a copy writes to every page
    if os.fork() == 0:
        ours.close()
        _name("warm")
        _ignore_signals()
        _end(lambda: _Warm(Link(theirs), mains).serve())
    theirs.close()
    return Link(ours)


class _Warm:
    def __init__(self, link: Link, mains: Mapping[Role, Main]) -> None:
        self._link = link
        self._mains = mains

    def serve(self) -> None:
        """Fork processes until the host has ended."""
        signal.signal(signal.SIGCHLD, self._reap)
        try:
            while True:
                message, descriptors = self._link.receive()
                fork = parse(message)
                if not isinstance(fork, Fork):
                    raise ValueError(f"the host sent {fork.kind}")
                (descriptor,) = descriptors
                self._fork(fork, descriptor)
        except LinkClosed:
            pass

    def _fork(self, fork: Fork, descriptor: int) -> None:
        with _uninterrupted():
            try:
                pid = os.fork()
            except OSError:
                logger.exception("a process cannot be started")
                pid = -1
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                self._link.close_copy()
                _name(fork.role)
                _end(lambda: self._mains[fork.role](Link.over(descriptor), fork.start))
            os.close(descriptor)
            self._link.send(Forked(pid=max(0, pid)).to_bytes())

    def _reap(self, number: int, frame: FrameType | None) -> None:
        with _uninterrupted(), suppress(ChildProcessError, LinkClosed):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                pid, status = ended
                self._link.send(Ended(pid=pid, status=os.waitstatus_to_exitcode(status)).to_bytes())


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back the signal of a process that ends. Its handler sends, and must not run while a message is sent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _name(role: str) -> None:
    """Show the role in `ps` and `top`, where a system has names for threads."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"mien-{role}")


def _ignore_signals() -> None:
    """Only the host obeys signals: it asks its processes to hand over their sessions and to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end(work: Callable[[], None]) -> None:
    """Do the work and end this process without the host's own clean-up."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        logger.exception("a process of the generator has failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
