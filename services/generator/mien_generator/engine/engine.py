"""A worker's engine, as the event loop sees it: sessions come and go, get motion, and change their tier.

The frames are made by the pool's threads (`pool.py`), the network's faces by the device (`device/`).
Without the device, every session continues on the last tier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakSet, ref

from mien_generator.device.contract import Ask, Device, DeviceLost, Made
from mien_generator.engine.board import Board
from mien_generator.engine.pipeline import Pipeline
from mien_generator.engine.pool import Pool
from mien_generator.engine.session import Arrival, GeneratorSession, SessionAvatar
from mien_generator.engine.tiers import SessionLoad
from mien_generator.face.contract import FaceGenerator, FaceRefused
from mien_generator.face.ladder import Tiers
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import EndedBy, GeneratorMetrics, Skipped
from mien_shared.bus.messages import KeyframeReason, SessionRecord, SessionStats
from mien_shared.clock import Clock

logger = logging.getLogger(__name__)

#: A session younger than this has no meaningful frame rate yet.
_YOUNG_S = 2.0
#: A session misses frames if it gets less than this share of the frames that it has motion for.
_HELD = 0.8


class EngineStopped(RuntimeError):
    """The engine accepts no sessions, because it was closed or one of its threads has failed."""


class Engine:
    """The sessions of one worker. Its public methods are called from the event loop, except the device's answers."""

    def __init__(
        self, tiers: Tiers, pipeline: Pipeline, clock: Clock, metrics: GeneratorMetrics, *, fps: int, threads: int
    ) -> None:
        """threads: pool threads. The engine begins without a device: `use` gives it one."""
        self._tiers = tiers
        self._clock = clock
        self._metrics = metrics
        self._fps = fps
        self._board = Board(tiers.last, fps, clock)
        self._pool = Pool(
            self._board,
            pipeline,
            clock,
            metrics,
            threads=threads,
            on_failed=lambda session: self.remove(session.session_id, EndedBy.FAILED),
            on_broken=self._stop,
        )
        #: Prepares avatars for the last tier. A thread of the pool would delay other sessions' frames.
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._on_device: WeakSet[SessionAvatar] = WeakSet()
        self._failed: list[str] = []
        self._suspects: list[str] = []
        #: The tier on which a session begins, if its avatar can be prepared for it.
        self.first_tier = tiers.last
        #: Why a thread has ended; then only a restart helps.
        self.failure: str | None = None
        #: Number of sessions that were removed, for any reason.
        self.ended = 0
        self._closed = False

    def start(self) -> None:
        self._pool.start()

    def use(self, device: Device) -> None:
        """Let this device make the faces of all tiers but the last, from now on."""
        self._board.device = device

    def close(self) -> None:
        """End the threads after their current work."""
        self._stop(None)
        self._pool.join()
        self._preparer.shutdown()

    # Sessions

    def records(self) -> list[SessionRecord]:
        """The records of all sessions of this engine."""
        return [session.record for session in self._board.sessions()]

    async def add(
        self, record: SessionRecord, avatar: SessionAvatar, compositor: Compositor, encoder: H264Encoder
    ) -> None:
        """Add a session on the first tier, or below if that has no room. Raises `prepare`'s errors, EngineStopped."""
        tier = self.first_tier if self._board.device is not None else self._tiers.last
        while True:
            try:
                await asyncio.wrap_future(self._prepare(avatar, tier))
                break
            except (FaceRefused, DeviceLost):  # the device may be full for this tier but not for the next one
                if tier == self._tiers.last:
                    raise
                tier += 1
        session = GeneratorSession(
            record, avatar, tier, compositor, encoder, KeyframePolicy(), self._clock.monotonic_s()
        )
        if not self._board.add(session):
            raise EngineStopped(self.failure or "the engine is closed")
        self._count_sessions()
        if tier not in avatar.prepared:  # the device was lost meanwhile
            self.step(session.session_id, self._tiers.last)
        for lower in range(tier + 1, len(self._tiers.names)):
            self._prepare(avatar, lower, ahead=True)

    def remove(self, session_id: str, reason: EndedBy) -> None:
        """Remove a session and count it under this reason. Does nothing if the session is unknown."""
        if self._board.remove(session_id) is None:
            return
        self.ended += 1
        if reason is EndedBy.FAILED:
            self._failed.append(session_id)
        self._count_sessions()
        self._metrics.session_ended(reason)

    def take_failed(self) -> list[str]:
        """The sessions that were removed because their frames failed, since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def take_suspects(self) -> list[str]:
        """The sessions whose faces were under way when the device was lost, since the last call."""
        suspects, self._suspects = self._suspects, []
        return suspects

    def offer(self, session_id: str, arrival: Arrival) -> None:
        """Pass the newest motion of a session to the engine."""
        session = self._board.find(session_id)
        if session is None:
            self._metrics.skipped(Skipped.UNKNOWN_SESSION)
        elif replaced := self._board.offer(session, arrival):
            self._metrics.skipped(Skipped.SUPERSEDED, replaced)

    def request_keyframe(self, session_id: str, reason: KeyframeReason) -> None:
        self._metrics.idr_requested(reason)
        if session := self._board.find(session_id):
            session.request_keyframe(reason)

    def set_bitrate(self, session_id: str, bitrate_bps: int) -> None:
        if session := self._board.find(session_id):
            session.request_bitrate(bitrate_bps)

    # Figures

    def stats(self) -> dict[str, SessionStats]:
        """The figures of every session."""
        now_s, found = self._clock.monotonic_s(), {}
        for session in self._board.sessions():
            tier = session.tier
            found[session.session_id] = session.meter.stats(now_s, self._tiers.backends[tier], self._tiers.names[tier])
        return found

    def loads(self) -> list[SessionLoad]:
        """The sessions as the policy of the tiers sees them, oldest first."""
        now_s = self._clock.monotonic_s()
        return [self._load_of(session, now_s) for session in self._board.sessions() if not session.is_pinned]

    def _load_of(self, session: GeneratorSession, now_s: float) -> SessionLoad:
        arrived_fps, drawn_fps = session.meter.rates_fps(now_s)
        is_live = session.timing.stalls_at_s > now_s
        wanted_fps = min(arrived_fps, self._fps) if is_live else float(self._fps)
        is_young = now_s - session.meter.since_s < _YOUNG_S
        return SessionLoad(
            session.session_id,
            session.target_tier,
            wanted_fps,
            wanted_fps if is_young else drawn_fps,
            session.meter.since_s,
        )

    @property
    def is_overloaded(self) -> bool:
        """Whether sessions on the last tier miss frames that they have motion for. They cannot step down further."""
        last = [load for load in self.loads() if load.tier == self._tiers.last]
        return any(load.drawn_fps < _HELD * load.wanted_fps for load in last)

    def _count_sessions(self) -> None:
        self._metrics.sessions([self._tiers.names[tier] for tier in self._board.tiers()])

    # Tiers

    def step(self, session_id: str, tier: int) -> None:
        """Move a session to a tier as soon as its avatar is prepared for it. Does nothing if the session is unknown."""
        if (session := self._board.find(session_id)) and (tier == self._tiers.last or not session.is_pinned):
            session.target_tier = tier
            preparation = self._prepare(session.avatar, tier)
            preparation.add_done_callback(lambda prepared: self._enter_tier(session, tier, prepared))

    def pin(self, session_id: str) -> None:
        """Keep a session on the last tier for good: the device was lost more than once while it drew this session."""
        if session := self._board.find(session_id):
            session.is_pinned = True
            logger.warning("a session may have caused the loss of devices: it stays on the last tier")
            self.step(session_id, self._tiers.last)

    def _enter_tier(self, session: GeneratorSession, tier: int, prepared: Future[None]) -> None:
        """The tier's face is ready: draw the session's next frame on this tier, with the same H.264 encoder."""
        name = self._tiers.names[tier]
        if error := prepared.exception():
            session.target_tier = session.tier
            logger.warning("tier not changed", extra={"tier": name, "error": str(error)})
            return
        is_down = tier > session.tier
        if session.tier == tier:
            return
        if self._board.enter(session, tier):
            self._count_sessions()
            self._metrics.stepped("down" if is_down else "up")
            logger.info("tier changed", extra={"tier": name})

    def _prepare(self, avatar: SessionAvatar, tier: int, ahead: bool = False) -> Future[None]:
        """Prepare an avatar for a tier, unless it is prepared. ahead: the tier is not needed yet."""
        done: Future[None] = Future()
        device = self._board.device
        if tier in avatar.prepared:
            done.set_result(None)
        elif self._closed:
            done.set_exception(EngineStopped(self.failure or "the engine is closed"))
        elif tier == self._tiers.last:
            preparing = self._preparer.submit(_prepared_if_alive, self._tiers.last_generator, ref(avatar))
            preparing.add_done_callback(partial(_keep, ref(avatar), tier, done))
        elif device is None:
            done.set_exception(DeviceLost("there is no device"))
        else:
            self._on_device.add(avatar)
            preparing = device.prepare(avatar.face, tier, ahead)
            preparing.add_done_callback(partial(_keep, ref(avatar), tier, done))
        return done

    # Answers of the device, on its thread

    def begun(self, asks: Sequence[Ask]) -> None:
        self._board.begun(ask.ticket for ask in asks)

    def made(self, ask: Ask, made: Made) -> None:
        self._board.made(ask.ticket, made)

    def failed(self, ask: Ask, error: str) -> None:
        if session := self._board.asker(ask.ticket):
            logger.error("a session's face failed", extra={"error": error})
            self.remove(session.session_id, EndedBy.FAILED)

    def lost(self, reason: str) -> None:
        """Every session continues on the last tier; what was prepared on the device is gone."""
        self.first_tier = self._tiers.last
        self._suspects += self._board.forget_device(list(self._on_device))
        self._on_device.clear()
        if not self._closed:
            logger.warning("the device is lost, sessions continue without it", extra={"reason": reason})
            for session in self._board.sessions():
                self.step(session.session_id, self._tiers.last)

    # The end

    def _stop(self, failure: str | None) -> None:
        """Start no more work, and remove all sessions. failure: why a thread has ended."""
        self._closed = True
        self.failure = self.failure or failure
        for _ in self._board.clear():
            if failure:
                self._metrics.session_ended(EndedBy.ENGINE_FAILED)
        self._count_sessions()


def _prepared_if_alive(generator: FaceGenerator[Any], avatar: ref[SessionAvatar]) -> Any:
    """The avatar's prepared face; None if its sessions have ended before its turn came."""
    alive = avatar()
    return None if alive is None else generator.prepare(alive.face)


def _keep(avatar: ref[SessionAvatar], tier: int, done: Future[None], prepared: Future[Any]) -> None:
    """Keep what was prepared, or pass on why it was not."""
    if not done.set_running_or_notify_cancel():
        return  # the caller has cancelled it
    if prepared.cancelled():
        done.set_exception(DeviceLost("the device is gone"))
    elif error := prepared.exception():
        done.set_exception(error)
    else:
        if (alive := avatar()) is not None:
            alive.prepared.setdefault(tier, prepared.result())
        done.set_result(None)
