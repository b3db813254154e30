"""The threads that make the frames of an engine's sessions: motion, composition, H.264, and faces of the last tier.

An error in a session's frame ends that session and no other. An error of a thread itself ends all of them: the worker
must start again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mien_generator.engine.board import Begin, Board, Finish
from mien_generator.engine.pipeline import Pipeline
from mien_generator.engine.session import GeneratorSession
from mien_generator.engine.turn import run
from mien_generator.metrics import GeneratorMetrics, Skipped
from mien_shared.clock import Clock

logger = logging.getLogger(__name__)


class Pool:
    """The threads. They take work from the board until it is closed."""

    def __init__(
        self,
        board: Board,
        pipeline: Pipeline,
        clock: Clock,
        metrics: GeneratorMetrics,
        *,
        threads: int,
        on_failed: Callable[[GeneratorSession], None],
        on_broken: Callable[[str], None],
    ) -> None:
        """on_failed: a session's frame failed. on_broken: a thread has ended, and why."""
        self._board = board
        self._pipeline = pipeline
        self._clock = clock
        self._metrics = metrics
        self._on_failed = on_failed
        self._on_broken = on_broken
        self._threads = [
            threading.Thread(target=self._run, name=f"pool {number}", daemon=True) for number in range(1, threads + 1)
        ]
        metrics.pool(threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the threads' end. Close the board before."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            name = threading.current_thread().name
            logger.exception("an engine thread has failed", extra={"failed": name})
            self._on_broken(f"the {name} thread has failed: {error}")

    def _step(self) -> bool:
        """Wait for work and do it. False: the board is closed. While it waits, the thread holds no session."""
        work = self._board.take()
        if work is None:
            return False
        begun_s = self._clock.monotonic_s()
        with self._isolating(work.session):
            self._begin(work) if isinstance(work, Begin) else self._finish(work)
        self._metrics.worked("pool", self._clock.monotonic_s() - begun_s)
        return True

    def _begin(self, begin: Begin) -> None:
        """Run a turn to its end, or up to the face that the device makes."""
        if begin.replaces:
            self._metrics.skipped(Skipped.SUPERSEDED)
        work = self._pipeline.frame(begin.session, begin.cue)
        if (wanted := run(work)) is None:
            self._board.began(begin.session)
        else:
            self._board.asked(begin, work, wanted)

    def _finish(self, finish: Finish) -> None:
        finish.turn.finish()
        self._board.framed(finish.session)

    @contextmanager
    def _isolating(self, session: GeneratorSession) -> Iterator[None]:
        """An error in a session's frame removes that session and does not affect the others."""
        try:
            yield
        except Exception:
            logger.exception("a session's frame failed")
            self._on_failed(session)
