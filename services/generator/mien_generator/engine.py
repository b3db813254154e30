"""The engine's threads. The device thread makes faces in batches; the pool's threads compose and encode frames.

A thread that becomes free takes the most urgent work (`scheduler.py`). The device thread takes the sessions that are
due on the device's tiers. A pool thread takes a face that waits to be composed and encoded, or a session of the last
tier, for which it makes the face too. A session has at most one face in progress and one frame at its H.264 encoder. So
no queue can form, frames keep their order, and the next face always shows the newest motion.

A face that fails ends its own session and no other. A batch that fails on the device is made again, one face at a
time. If a face fails alone, the device is tried with a computed avatar. A device that cannot make that face either is
lost: its thread ends, `failure` says why, /livez fails, and other generators claim the sessions.

The thread that makes a tier's faces also prepares its avatars. The device thread does so between two batches, at most
one at a time. It prepares the tiers below a session's current tier while it has nothing else to do, so that a step down
finds the face ready.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from mien_generator.cost import BatchCost, Load
from mien_generator.face.contract import FaceRefused
from mien_generator.face.ladder import Ladder
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import EndedBy, GeneratorMetrics, Skipped
from mien_generator.pipeline import Driven, FacesUnderWay, Pipeline
from mien_generator.scheduler import gather
from mien_generator.session import Arrival, Cue, DrawnFace, GeneratorSession, SessionAvatar
from mien_generator.tiers import SessionLoad, TierPolicy
from mien_shared.bus.messages import KeyframeReason, SessionRecord, SessionStats
from mien_shared.clock import Clock

logger = logging.getLogger(__name__)

#: Longest batch as a share of a frame's interval: a longer batch would delay sessions that become due meanwhile.
_BATCH_SHARE = 0.5
#: A session younger than this has no meaningful frame rate yet.
_YOUNG_S = 2.0
#: An idle thread looks for work at least this often.
_LONGEST_WAIT_S = 1.0
#: A session misses frames if it gets less than this share of the frames that it has motion for.
_HELD = 0.8


class EngineStopped(RuntimeError):
    """The engine accepts no sessions, because it was closed or one of its threads has failed."""


class Engine:
    """Makes the frames of all sessions on its own threads. Its public methods are called from the event loop."""

    def __init__(
        self,
        ladder: Ladder,
        costs: Mapping[int, BatchCost],
        pipeline: Pipeline,
        clock: Clock,
        metrics: GeneratorMetrics,
        *,
        fps: int,
        floor_fps: float,
        max_batch: int,
        threads: int,
    ) -> None:
        """costs: batch costs of each device tier, measured without other load. threads: pool threads, one per core."""
        self._ladder = ladder
        self._costs = dict(costs)
        self._most = {tier: cost.most_within(_BATCH_SHARE / fps, max_batch) for tier, cost in costs.items()}
        self._most[ladder.last] = 1
        self._pipeline = pipeline
        self._clock = clock
        self._metrics = metrics
        self._fps = fps
        self._policy = TierPolicy(floor_fps, ladder.shares_cores)
        self._load = Load()
        self._sessions: dict[str, GeneratorSession] = {}
        self._preparations: deque[_Preparation] = deque()
        self._prepared_last = False
        self._under_way: _Batch | None = None
        self._drawn_s = float("-inf")
        self._closing = False
        self._lock = threading.Lock()
        self._device_work = threading.Condition(self._lock)
        self._pool_work = threading.Condition(self._lock)
        metrics.pool(threads)
        self._threads = [
            threading.Thread(target=self._run, args=(self._pool_step,), name=f"pool {number}", daemon=True)
            for number in range(1, threads + 1)
        ]
        if ladder.last > 0:
            self._threads.append(threading.Thread(target=self._run_device, name="device", daemon=True))
        self._failed: list[str] = []
        self.failure: str | None = None
        #: The sessions of the batch with which the device was lost: one of them may have caused it.
        self.suspects: list[str] = []
        #: Number of sessions that were removed, for any reason.
        self.ended = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads after their current work, and free the device's memory."""
        self._stop()
        for thread in self._threads:
            thread.join()
        self._ladder.rungs[-1].generator.close()

    # Called from the event loop

    def records(self) -> list[SessionRecord]:
        """The records of all sessions of this engine."""
        return [session.record for session in list(self._sessions.values())]

    def stats(self) -> dict[str, SessionStats]:
        """The figures of every session."""
        now_s, found = self._clock.monotonic_s(), {}
        for session in list(self._sessions.values()):
            rung = self._ladder.rungs[session.tier]
            found[session.session_id] = session.meter.stats(now_s, rung.generator.name, rung.name)
        return found

    @property
    def is_overloaded(self) -> bool:
        """Whether sessions on the last tier miss frames that they have motion for. They cannot step down further."""
        last = [load for load in self._loads() if load.tier == self._ladder.last]
        return any(load.drawn_fps < _HELD * load.wanted_fps for load in last)

    async def add(
        self, record: SessionRecord, avatar: SessionAvatar, compositor: Compositor, encoder: H264Encoder
    ) -> None:
        """Add a session on the best tier that has room. Raises the errors of `prepare`, and EngineStopped."""
        tier = self._policy.first_tier(self._loads(), self._face_s(), self._fps)
        while True:
            try:
                await asyncio.wrap_future(self._prepare(avatar, tier))
                break
            except FaceRefused:  # the device's memory may be full for this tier but not for the next one
                if tier == self._ladder.last:
                    raise
                tier += 1
        session = GeneratorSession(
            record, avatar, tier, compositor, encoder, KeyframePolicy(), self._clock.monotonic_s()
        )
        with self._lock:
            self._refuse_if_stopped()
            self._sessions[session.session_id] = session
            self._count_sessions()
            self._wake(session)
        for lower in range(tier + 1, len(self._ladder.rungs)):
            self._prepare(avatar, lower, ahead=True)

    def take_failed(self) -> list[str]:
        """The sessions that were removed because their frames failed, since the last call."""
        with self._lock:
            failed, self._failed = self._failed, []
        return failed

    def remove(self, session_id: str, reason: EndedBy) -> None:
        """Remove a session and count it under this reason. Does nothing if the session is unknown."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
            if session is None:
                return
            session.gone = True
            session.drawn = None
            self.ended += 1
            if reason is EndedBy.FAILED:
                self._failed.append(session_id)
            self._count_sessions()
        self._metrics.session_ended(reason)

    def offer(self, session_id: str, arrival: Arrival) -> None:
        """Pass the newest motion of a session to the engine."""
        session = self._sessions.get(session_id)
        if session is None:
            self._metrics.skipped(Skipped.UNKNOWN_SESSION)
            return
        with self._lock:
            replaced = session.offer(arrival)
            self._wake(session)
        if replaced:
            self._metrics.skipped(Skipped.SUPERSEDED, replaced)

    def request_keyframe(self, session_id: str, reason: KeyframeReason) -> None:
        self._metrics.idr_requested(reason)
        if session := self._sessions.get(session_id):
            session.request_keyframe(reason)

    def set_bitrate(self, session_id: str, bitrate_bps: int) -> None:
        if session := self._sessions.get(session_id):
            session.request_bitrate(bitrate_bps)

    def balance(self) -> None:
        """Step sessions up or down according to the device's load. Call it a few times per second."""
        for step in self._policy.decide(self._clock.monotonic_s(), self._loads(), self._face_s()):
            self.step(step.session_id, step.tier)

    def step(self, session_id: str, tier: int) -> None:
        """Move a session to a tier as soon as its avatar is prepared for it. Does nothing if the session is unknown."""
        if session := self._sessions.get(session_id):
            session.target_tier = tier
            preparation = self._prepare(session.avatar, tier)
            preparation.add_done_callback(lambda prepared: self._enter_tier(session, tier, prepared))

    # Tiers

    def _loads(self) -> list[SessionLoad]:
        """The sessions as the policy sees them, oldest first."""
        now_s = self._clock.monotonic_s()
        return [self._load_of(session, now_s) for session in list(self._sessions.values())]

    def _load_of(self, session: GeneratorSession, now_s: float) -> SessionLoad:
        arrived_fps, drawn_fps = session.meter.rates_fps(now_s)
        is_live = session.timing.stalls_at_s > now_s
        wanted_fps = min(arrived_fps, self._fps) if is_live else float(self._fps)
        is_young = now_s - session.meter.since_s < _YOUNG_S
        return SessionLoad(session.session_id, session.target_tier, wanted_fps, wanted_fps if is_young else drawn_fps)

    def _face_s(self) -> list[float]:
        """Seconds of device time per face on each tier under the present load, in the largest allowed batches."""
        costs = [self._costs[tier].of(most) / most for tier, most in self._most.items() if tier != self._ladder.last]
        return [*(cost_s * self._load.factor for cost_s in costs), 0.0]

    def _enter_tier(self, session: GeneratorSession, tier: int, prepared: Future[None]) -> None:
        """The tier's face is ready: draw the session's next frame on this tier, with the same H.264 encoder."""
        name = self._ladder.rungs[tier].name
        with self._lock:
            if session.gone or session.target_tier != tier:
                return
            if error := prepared.exception():
                session.target_tier = session.tier
                logger.warning("tier not changed", extra={"tier": name, "error": str(error)})
                return
            is_down = tier > session.tier
            session.tier = tier
            self._count_sessions()
            self._wake(session)
        self._metrics.stepped("down" if is_down else "up")
        logger.info("tier changed", extra={"tier": name})

    def _prepare(self, avatar: SessionAvatar, tier: int, ahead: bool = False) -> Future[None]:
        """Queue the preparation of an avatar for a tier. ahead: do it only while there is nothing else to do."""
        preparation = _Preparation(avatar, tier, ahead)
        if tier in avatar.prepared:
            preparation.done.set_result(None)
            return preparation.done
        with self._lock:
            self._refuse_if_stopped()
            self._preparations.append(preparation)
            (self._device_work if self._is_on_device(tier) else self._pool_work).notify()
        return preparation.done

    def _next_preparation(self, on_device: bool, is_idle: bool) -> _Preparation | None:
        """The next preparation: requested ones first, then those ahead of need if the thread is idle."""
        mine = [one for one in self._preparations if self._is_on_device(one.tier) == on_device]
        for preparation in sorted(mine, key=lambda one: one.ahead):
            if is_idle or not preparation.ahead:
                self._preparations.remove(preparation)
                return preparation
        return None

    def _carry_out(self, preparation: _Preparation) -> None:
        if not preparation.done.set_running_or_notify_cancel():
            return  # the caller has cancelled it
        try:
            prepared = preparation.avatar.prepared
            if preparation.tier not in prepared:
                prepared[preparation.tier] = self._ladder.rungs[preparation.tier].generator.prepare(
                    preparation.avatar.face
                )
        except Exception as error:  # noqa: BLE001 - passed to the caller through the future
            preparation.done.set_exception(error)
        else:
            preparation.done.set_result(None)

    # With the lock held

    def _is_on_device(self, tier: int) -> bool:
        return tier < self._ladder.last

    def _drawable(self, on_device: bool) -> Iterator[GeneratorSession]:
        for session in self._sessions.values():
            is_free = session.may_be_drawn and (on_device or not session.encoding)
            if is_free and self._is_on_device(session.tier) == on_device:
                yield session

    def _wake(self, session: GeneratorSession) -> None:
        (self._device_work if self._is_on_device(session.tier) else self._pool_work).notify()

    def _count_sessions(self) -> None:
        self._metrics.sessions([self._ladder.rungs[session.tier].name for session in self._sessions.values()])

    def _refuse_if_stopped(self) -> None:
        if self._closing:
            raise EngineStopped(self.failure or "the engine is closed")

    # On the device thread

    def _run_device(self) -> None:
        try:
            self._run(self._device_step)
        finally:
            for rung in self._ladder.rungs[:-1]:
                rung.generator.close()

    def _device_step(self) -> bool:
        """Make the most urgent batch, or prepare an avatar, or wait for work. If both are pending, they alternate.

        If batches overlap, one is in progress while the next is gathered and given to the device.
        """
        with self._lock:
            if self._closing:
                return False
            now_s = self._clock.monotonic_s()
            batch = gather(self._drawable(on_device=True), now_s, self._fps, self._most)
            preparation = None
            if not (batch.due and self._prepared_last):
                preparation = self._next_preparation(on_device=True, is_idle=not batch.due and not self._under_way)
            self._prepared_last = preparation is not None
            if preparation is None and not batch.due and self._under_way is None:
                self._device_work.wait(_wait_s(batch.next_due_s, now_s))
                return True
            turns = []
            if preparation is None:
                turns = [(session, session.begin(now_s, due_s, self._fps)) for session, due_s in batch.due]
        with self._working("device"):
            before, self._under_way = self._under_way, self._begin_batch(batch.tier, turns) if turns else None
            if before is not None:
                self._finish_batch(before)
            if self._under_way is not None and self._under_way.faces.is_done:
                before, self._under_way = self._under_way, None
                self._finish_batch(before)
            if preparation is not None:
                self._carry_out(preparation)
        return True

    def _begin_batch(self, tier: int, turns: list[tuple[GeneratorSession, Cue]]) -> _Batch | None:
        moved: list[Driven] = []
        for session, cue in turns:
            motion = None
            with self._isolating(session):
                motion = self._pipeline.motion(session, cue)
            if motion:
                moved.append((session, motion))
            else:
                with self._lock:
                    session.drawing = False
        return _Batch(moved, self._pipeline.begin_faces(tier, moved)) if moved else None

    def _finish_batch(self, batch: _Batch) -> None:
        """Wait until the device has made the faces, and hand them to the pool."""
        try:
            faces = self._pipeline.faces(batch.faces)
        except Exception:
            logger.exception("a batch failed on the device: making its faces one by one")
            self._metrics.batch_failed()
            self._make_alone(batch)
            return
        # A batch that was submitted while another one ran gets the device only when that one is done.
        busy_s = faces[0].drawn_s - max(batch.faces.started_s, self._drawn_s)
        self._drawn_s = faces[0].drawn_s
        self._load.observe(self._costs[batch.faces.tier].of(len(faces)), busy_s)
        self._metrics.device_load(self._load.factor)
        self._hand_over(batch.moved, faces)

    def _hand_over(self, moved: list[Driven], faces: Sequence[DrawnFace | None]) -> None:
        """Give the pool the faces of these sessions; None where there is none."""
        with self._lock:
            for (session, _), face in zip(moved, faces, strict=True):
                session.drawing = False
                if not session.gone:  # a session that was removed during the batch gets no more frames
                    session.drawn = face
                    self._pool_work.notify()

    def _make_alone(self, batch: _Batch) -> None:
        """Make the faces of a failed batch one by one; raises the device's error if the device is lost."""
        if self._under_way is not None and self._under_way is not batch:  # the device makes one thing at a time
            under_way, self._under_way = self._under_way, None
            self._finish_batch(under_way)
        is_tried = False
        for session, motion in batch.moved:
            face = None
            try:
                (face,) = self._pipeline.faces(self._pipeline.face_alone(batch.faces.tier, (session, motion)))
            except Exception:
                if not is_tried:
                    self.suspects = [suspect.session_id for suspect, _ in batch.moved]
                    self._pipeline.try_device(batch.faces.tier)
                    is_tried, self.suspects = True, []
                logger.exception("a session's face failed")
                self.remove(session.session_id, EndedBy.FAILED)
            self._hand_over([(session, motion)], [face])

    # On the pool's threads

    def _pool_step(self) -> bool:
        """Make the most urgent frame, from a face of the device or for a session of the last tier; or wait for work."""
        with self._lock:
            if self._closing:
                return False
            now_s = self._clock.monotonic_s()
            preparation = self._next_preparation(on_device=False, is_idle=True)
            if preparation is None:
                batch = gather(self._drawable(on_device=False), now_s, self._fps, self._most)
                drawn = [one for one in self._sessions.values() if one.drawn is not None and not one.encoding]
                first = min(drawn, key=lambda one: one.deadline_s, default=None)
                if first is None and not batch.due:
                    self._pool_work.wait(_wait_s(batch.next_due_s, now_s))
                    return True
                if first is not None and first.deadline_s <= batch.deadline_s:
                    session, cue, face = first, None, first.drawn
                    session.drawn = None
                    self._device_work.notify()  # the session's next face may be made while this one is encoded
                else:
                    ((session, due_s),) = batch.due
                    cue, face = session.begin(now_s, due_s, self._fps), None
                session.encoding = True
                self._pool_work.notify()  # let another waiting thread look for the next work
        if preparation is not None:
            self._carry_out(preparation)
            return True
        with self._working("pool"), self._isolating(session):
            if cue is not None:
                face = self._draw_alone(session, cue)
            if face is not None:
                self._pipeline.frame(session, face)
        with self._lock:
            session.encoding = False
            if cue is not None:
                session.drawing = False
        return True

    def _draw_alone(self, session: GeneratorSession, cue: Cue) -> DrawnFace | None:
        motion = self._pipeline.motion(session, cue)
        if motion is None:
            return None
        return self._pipeline.faces(self._pipeline.begin_faces(self._ladder.last, [(session, motion)]))[0]

    @contextmanager
    def _working(self, thread: Literal["device", "pool"]) -> Iterator[None]:
        begun_s = self._clock.monotonic_s()
        yield
        self._metrics.worked(thread, self._clock.monotonic_s() - begun_s)

    @contextmanager
    def _isolating(self, session: GeneratorSession) -> Iterator[None]:
        """An error in a session's frame removes that session and does not affect the others."""
        try:
            yield
        except Exception:
            logger.exception("a session's frame failed")
            self.remove(session.session_id, EndedBy.FAILED)

    # On every thread

    def _run(self, step: Callable[[], bool]) -> None:
        try:
            while step():
                pass
        except Exception as error:
            name = threading.current_thread().name
            logger.exception("an engine thread has failed", extra={"failed": name})
            self._stop(f"the {name} thread has failed: {error}")

    def _stop(self, failure: str | None = None) -> None:
        """Start no more work, and remove all sessions: they need both the device and the pool."""
        with self._lock:
            self._closing = True
            self.failure = self.failure or failure
            for session in self._sessions.values():
                session.gone = True
                if failure:
                    self._metrics.session_ended(EndedBy.ENGINE_FAILED)
            self._sessions.clear()
            self._count_sessions()
            waiting, self._preparations = self._preparations, deque()
            self._device_work.notify_all()
            self._pool_work.notify_all()
        for preparation in waiting:
            if preparation.done.set_running_or_notify_cancel():
                preparation.done.set_exception(EngineStopped(self.failure or "the engine is closed"))


@dataclass(frozen=True, slots=True, eq=False)
class _Preparation:
    """A pending preparation of an avatar for a tier. ahead: it is not needed yet."""

    avatar: SessionAvatar
    tier: int
    ahead: bool
    done: Future[None] = field(default_factory=Future)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """A batch of faces that the device was given, with their sessions."""

    moved: list[Driven]
    faces: FacesUnderWay


def _wait_s(due_s: float, now_s: float) -> float:
    return min(_LONGEST_WAIT_S, max(0.0, due_s - now_s))
