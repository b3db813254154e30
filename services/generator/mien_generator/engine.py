"""The device's owner thread: it alone touches face generator, compositors and encoders, and runs whatever is due."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from mien_generator.face.contract import PreparedFace
from mien_generator.metrics import GeneratorMetrics
from mien_generator.pipeline import Pipeline
from mien_generator.scheduler import gather
from mien_generator.session import Arrival, GeneratorSession
from mien_shared.clock import Clock
from mien_shared.messages import KeyframeReason, SessionRecord, SessionStats

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=PreparedFace)


class Engine(Generic[P]):
    """Sessions in, frames out. Called from the event loop; what it does, it does on its own thread."""

    def __init__(
        self, pipeline: Pipeline[P], clock: Clock, metrics: GeneratorMetrics, fps: int, max_batch: int
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._metrics = metrics
        self._fps = fps
        self._max_batch = max_batch
        self._sessions: dict[str, GeneratorSession[P]] = {}
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self.failure: str | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after the batch in hand, and give the device's memory back."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # Called from the event loop

    def records(self) -> list[SessionRecord]:
        """The sessions being generated."""
        return [session.record for session in list(self._sessions.values())]

    def stats(self) -> dict[str, SessionStats]:
        """Every session's figures."""
        now_s, engine = self._clock.monotonic_s(), self._pipeline.faces.name
        return {
            session.session_id: session.meter.stats(now_s, engine, f"{engine}-{session.prepared.size}")
            for session in list(self._sessions.values())
        }

    async def add(self, build: Callable[[], GeneratorSession[P]]) -> None:
        """Build a session on the device's thread and take it in; raises what `build` raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def job() -> None:
            try:
                session = build()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked for the session
                loop.call_soon_threadsafe(done.set_exception, error)
                return
            self._sessions[session.session_id] = session
            self._count_sessions()
            loop.call_soon_threadsafe(done.set_result, None)

        self._submit(job)
        await done

    def remove(self, session_id: str, reason: str) -> None:
        """Let go of a session, which counts under this reason; harmless if there is none of that id."""
        self._submit(lambda: self._remove(session_id, reason))

    def offer(self, session_id: str, arrival: Arrival) -> None:
        """The newest motion of a session."""
        session = self._sessions.get(session_id)
        if session is None:
            self._metrics.skipped("unknown_session")
            return
        with self._changed:
            if not session.offer(arrival):
                self._metrics.skipped("superseded")
            self._changed.notify()

    def request_keyframe(self, session_id: str, reason: KeyframeReason) -> None:
        self._metrics.idr_requested(reason)
        self._with_session(session_id, lambda session: session.request_keyframe(reason))

    def set_bitrate(self, session_id: str, bitrate_bps: int) -> None:
        self._with_session(session_id, lambda session: session.encoder.set_bitrate(bitrate_bps))

    # On the device's thread

    def _with_session(self, session_id: str, change: Callable[[GeneratorSession[P]], None]) -> None:
        def job() -> None:
            if session := self._sessions.get(session_id):
                change(session)

        self._submit(job)

    def _submit(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def _remove(self, session_id: str, reason: str) -> None:
        if self._sessions.pop(session_id, None) is not None:
            self._metrics.session_ended(reason)
            self._count_sessions()

    def _count_sessions(self) -> None:
        sizes = [session.prepared.size for session in self._sessions.values()]
        self._metrics.sessions(self._pipeline.faces.name, sizes)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            logger.exception("the device thread has failed")
            self.failure = f"the device thread has failed: {error}"
        finally:
            self._sessions.clear()
            self._pipeline.faces.close()

    def _step(self) -> bool:
        """Wait until something is to be done, and do it: what was asked for first, then the frames that are due."""
        with self._changed:
            batch = gather(self._sessions.values(), self._clock.monotonic_s(), self._fps, self._max_batch)
            if not (batch.due or self._jobs or self._closing):
                self._changed.wait(min(1.0, max(0.0, batch.next_due_s - self._clock.monotonic_s())))
                return True
            jobs, self._jobs = self._jobs, deque()
            if self._closing:
                return False
        for job in jobs:
            job()
        if batch.due:
            due = [entry for entry in batch.due if entry[0].session_id in self._sessions]
            for session_id in self._pipeline.run(due):
                self._remove(session_id, "failed")  # its lease lapses, and whoever claims it begins anew
        return True
