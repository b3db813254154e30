"""The generator as a service: Redis on one side, the engine's threads on the other."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakValueDictionary

import cv2
import numpy as np
from fastapi import FastAPI

from mien_generator.capacity import Speed, capacity
from mien_generator.engine import Engine, EngineStopped
from mien_generator.face.build import EngineUnavailable, Fallback
from mien_generator.face.contract import AvatarFace, FaceRefused, RgbArray
from mien_generator.face.ladder import Ladder
from mien_generator.face.region import CropBox
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder, NoEncoder, choose_encoder
from mien_generator.measure import default_cache_folder, measured_speed, usable_cores
from mien_generator.memory import give_back
from mien_generator.metrics import GeneratorMetrics
from mien_generator.pipeline import Pipeline
from mien_generator.session import Arrival, SessionAvatar
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarNotFound, AvatarRecord, AvatarStore, AvatarStoreError
from mien_shared.bus.channels import FramePublisher, GeneratorInbox
from mien_shared.bus.connection import BUS_ERRORS, open_redis, ping, redis_url
from mien_shared.bus.messages import (
    EncodedFrame,
    GeneratorStatus,
    InboundMotion,
    KeyframeReason,
    RequestKeyframe,
    SessionRecord,
    SetBitrate,
    StartSession,
    StopSession,
)
from mien_shared.bus.placement import AllFull, NoGenerator, hand_over
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, RESERVATION_MS, Registry, Renewal
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.service import Readiness, create_service
from mien_shared.loops import keep_trying
from mien_shared.spans import span
from mien_shared.wire.motion import MotionPacket, MotionPacketError

logger = logging.getLogger(__name__)

#: A session whose record has been gone for so long, with Redis answering, has expired. Its users write it anew every
#: five seconds, so a Redis that came back empty does not end it.
_EXPIRED_AFTER_S = 15.0
#: How long a session that was handed over goes on here, so that its viewers see no gap while the other prepares.
_OVERLAP_S = 1.0
_DRAIN_POLL_S = 0.1
#: An orphan whose avatar cannot be had is not tried again for so long.
_REFUSED_S = 30.0
_PROBE_INTERVAL_S = 1.0
#: How often sessions may be stepped between tiers: as often as the eye could notice that they should be.
_BALANCE_INTERVAL_S = 0.25
#: How long memory of sessions that ended may stay with us.
_TIDY_INTERVAL_S = 10.0


#: Sessions that have gone short for so long will go on doing so: a generator full of them takes no more.
_OVERLOADED_S = 3.0


class Generator:
    """One generator's dealings with Redis. Everything of a frame happens in the Engine."""

    def __init__(
        self,
        settings: GeneratorSettings,
        registry: Registry,
        avatars: AvatarStore,
        engine: Engine,
        ladder: Ladder,
        places: int,
        encoder_name: str,
        clock: Clock,
        metrics: GeneratorMetrics,
    ) -> None:
        self.generator_id = f"g-{secrets.token_hex(6)}"
        self._settings = settings
        self._registry = registry
        self._avatars = avatars
        self._engine = engine
        self._ladder = ladder
        self._places = places
        self._encoder_name = encoder_name
        self._clock = clock
        self._metrics = metrics
        self._inbox = GeneratorInbox(registry.redis, self.generator_id)
        # Sessions of one avatar share what was computed from it; it goes with the last of them.
        self._prepared_avatars: WeakValueDictionary[str, SessionAvatar] = WeakValueDictionary()
        self._starting: set[str] = set()
        self._missing_since_s: dict[str, float] = {}
        self._refused_until_s: dict[str, float] = {}
        self._overloaded_since_s: float | None = None
        self._draining = False
        self._beating = asyncio.Lock()
        self._said_farewell = False
        self._handed_over: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self) -> None:
        """Take in what the inbox holds: motion to the engine, orders to whoever carries them out."""
        for message in await self._inbox.read():
            match message:
                case InboundMotion(session_id, data, received_unix_us):
                    try:
                        packet = MotionPacket.unpack(data)
                    except MotionPacketError as error:
                        self._metrics.skipped(error.reason)
                        continue
                    self._metrics.channel_lag("motion", self._clock.unix_s() - received_unix_us / 1e6)
                    arrival = Arrival(packet, len(data), received_unix_us, self._clock.monotonic_s())
                    self._engine.offer(session_id, arrival)
                case StartSession(session=session, traceparent=parent):
                    self._start(session, claimed=False, parent=parent)
                case StopSession(session_id=session_id):
                    self._let_go(session_id, "stopped")
                case RequestKeyframe(session_id=session_id, reason=reason):
                    self._engine.request_keyframe(session_id, reason)
                case SetBitrate(session_id=session_id, bitrate_bps=bitrate_bps):
                    self._engine.set_bitrate(session_id, bitrate_bps)

    async def beat(self) -> None:
        """One heartbeat: tell of ourselves, renew every lease, drop what is no longer ours, claim what nobody holds."""
        async with self._beating:
            if not self._said_farewell:
                await self._beat()

    async def _beat(self) -> None:
        if self._engine.failure:  # without a device there is nothing to hold a session with: others claim them all
            return
        sessions = self._engine.records()
        await self._registry.heartbeat(
            GeneratorStatus(
                generator_id=self.generator_id,
                capacity=self._capacity(len(sessions)),
                sessions=len(sessions),
                engine=self._ladder.rungs[0].generator.name,
                draining=self._draining,
            )
        )
        ours = [session.session_id for session in sessions if session.session_id not in self._handed_over]
        renewals = await self._registry.renew(self.generator_id, ours)
        for session_id, renewal in renewals.items():
            self._heed(session_id, renewal)
        stats = self._engine.stats()
        await self._registry.put_stats({session_id: stats[session_id] for session_id in ours if session_id in stats})
        if not self._draining:
            for session in await self._registry.orphans():
                await self._claim(session)

    def _capacity(self, sessions: int) -> int:
        """The places there are: as many as were measured, but none are free while those who are here go short.

        What the operator set holds whatever happens.
        """
        now_s = self._clock.monotonic_s()
        if self._settings.capacity is not None or not self._engine.is_overloaded:
            self._overloaded_since_s = None
        elif self._overloaded_since_s is None:
            self._overloaded_since_s = now_s
        is_short = self._overloaded_since_s is not None and now_s - self._overloaded_since_s >= _OVERLOADED_S
        places = min(self._places, max(1, sessions)) if is_short else self._places
        self._metrics.capacity(places)
        return places

    async def drain(self, deadline_s: float) -> None:
        """Take no more sessions and hand those we have to other generators; return when all are gone or time is up.

        A session that was handed over goes on here for a moment; signaling drops our frames once the other's come.
        """
        self._draining = True
        give_up_s = self._clock.monotonic_s() + deadline_s
        while (left := self._engine.records()) and self._clock.monotonic_s() < give_up_s:
            for session in left:
                if session.session_id not in self._handed_over:
                    await self._hand_over(session)
            await self._clock.sleep(_DRAIN_POLL_S)

    async def _hand_over(self, session: SessionRecord) -> None:
        try:
            if await hand_over(self._registry, session, self.generator_id) is None:
                return
        except (NoGenerator, AllFull, *BUS_ERRORS):
            return
        self._handed_over.add(session.session_id)
        task = asyncio.create_task(self._let_go_later(session.session_id), name="hand over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _let_go_later(self, session_id: str) -> None:
        await self._clock.sleep(_OVERLAP_S)
        self._let_go(session_id, "drained")

    async def close(self) -> None:
        """Say farewell, so that others need not wait for the leases to lapse; no heartbeat follows or is under way."""
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(1.0), self._beating:
                self._said_farewell = True
                for session in self._engine.records():
                    await self._registry.release(self.generator_id, session.session_id)
                    self._metrics.session_ended("shutdown")
                await self._registry.remove_generator(self.generator_id)
                await self._inbox.remove()
        except (*BUS_ERRORS, TimeoutError):
            logger.warning("no farewell: redis does not answer")

    def _heed(self, session_id: str, renewal: Renewal) -> None:
        now_s = self._clock.monotonic_s()
        match renewal:
            case Renewal.HELD:
                self._missing_since_s.pop(session_id, None)
            case Renewal.TAKEN_OVER if session_id not in self._handed_over:  # it may have been while we asked
                self._let_go(session_id, "taken_over")
            case Renewal.ENDED:
                self._let_go(session_id, "stopped")
            case Renewal.UNRECORDED:
                if now_s - self._missing_since_s.setdefault(session_id, now_s) > _EXPIRED_AFTER_S:
                    self._let_go(session_id, "expired")

    async def _claim(self, session: SessionRecord) -> None:
        session_id = session.session_id
        if session_id in self._starting or self._clock.monotonic_s() < self._refused_until_s.get(session_id, 0.0):
            return
        if not await self._registry.reserve(self.generator_id, session_id, self._places):
            return
        if await self._registry.hold(self.generator_id, session_id, RESERVATION_MS):
            logger.info("session taken over")
            self._start(session, claimed=True)
        else:
            await self._registry.free_slot(self.generator_id, session_id)

    def _start(self, session: SessionRecord, claimed: bool, parent: str | None = None) -> None:
        known = {record.session_id for record in self._engine.records()} | self._starting
        if session.session_id in known:
            return
        self._starting.add(session.session_id)
        task = asyncio.create_task(self._build(session, claimed, parent), name="start session")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _build(self, session: SessionRecord, claimed: bool, parent: str | None) -> None:
        ordered_s = self._clock.monotonic_s()
        try:
            with span("start session", parent):
                with span("load avatar"):
                    record = await self._avatars.record(session.avatar_id)
                    still = await asyncio.to_thread(decode_png, await self._avatars.picture(session.avatar_id))
                with span("prepare face and encoder"):
                    avatar, compositor, encoder = await asyncio.to_thread(self._make, record, still)
                    await self._engine.add(session, avatar, compositor, encoder)
            self._metrics.session_started(claimed, self._clock.monotonic_s() - ordered_s)
            logger.info("session started", extra={"avatar": session.avatar_id})
        except (AvatarNotFound, AvatarStoreError, EngineStopped, FaceRefused, NoEncoder, ValueError) as error:
            self._metrics.session_not_started()
            logger.warning("session not started", extra={"error": str(error)})
            self._refused_until_s[session.session_id] = self._clock.monotonic_s() + _REFUSED_S
            await self._registry.release(self.generator_id, session.session_id)
        finally:
            self._starting.discard(session.session_id)

    def _make(self, record: AvatarRecord, still: RgbArray) -> tuple[SessionAvatar, Compositor, H264Encoder]:
        """What a session has of its own, and its avatar, which others may have already."""
        box = record.face_box
        compositor = Compositor(still, CropBox(box.x, box.y, box.size))
        encoder = H264Encoder(self._encoder_name, self._settings.bitrate_bps)
        avatar = self._prepared_avatars.get(record.avatar_id)
        if avatar is None:
            crop = np.ascontiguousarray(still[box.y : box.y + box.size, box.x : box.x + box.size])
            face = AvatarFace(crop, record.source_keypoints(), compositor.region)
            avatar = self._prepared_avatars.setdefault(record.avatar_id, SessionAvatar(face))
        return avatar, compositor, encoder

    def _let_go(self, session_id: str, reason: str) -> None:
        self._engine.remove(session_id, reason)
        self._missing_since_s.pop(session_id, None)


def decode_png(data: bytes) -> RgbArray:
    """A stored still picture as (H, W, 3) RGB; raises ValueError if it is none."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("the stored picture is not an image")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def create_app(
    settings: GeneratorSettings,
    make_ladder: Callable[[GeneratorSettings, int], tuple[Ladder, Fallback | None]],
) -> FastAPI:
    """The generator's application; its HTTP side is livez, readyz and metrics alone."""
    metrics, clock = GeneratorMetrics(), SystemClock()

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[Readiness]:
        loop = asyncio.get_running_loop()
        cv2.setNumThreads(1)  # sessions share the cores already
        cores = settings.cores or usable_cores()
        try:
            ladder, encoder_name, speed = await asyncio.to_thread(_look_around, settings, make_ladder, cores, metrics)
        except (EngineUnavailable, NoEncoder, ValueError, OSError) as error:
            # Another restart would meet the same machine: stay, say so, and take no session.
            logger.error("nothing can be generated here", extra={"error": str(error)})
            reasons = {"engine": str(error)}
            yield lambda: reasons
            return

        def publish(session_id: str, frame: EncodedFrame) -> None:
            loop.call_soon_threadsafe(publisher.push, session_id, frame)

        def on_lost(session_id: str, frames: int) -> None:
            metrics.lost(frames)
            engine.request_keyframe(session_id, KeyframeReason.REDIS)

        async def balance() -> None:
            while True:
                engine.balance()
                await clock.sleep(_BALANCE_INTERVAL_S)

        async def tidy() -> None:
            ended = engine.ended
            while True:
                await clock.sleep(_TIDY_INTERVAL_S)
                if engine.ended != ended:
                    ended = engine.ended
                    await asyncio.to_thread(give_back)

        engine = Engine(
            ladder,
            dict(enumerate(speed.device)),
            Pipeline(ladder, clock, metrics, publish),
            clock,
            metrics,
            fps=settings.fps,
            floor_fps=settings.floor_fps,
            max_batch=settings.max_batch,
            threads=max(1, round(cores)),
        )
        places = settings.capacity or capacity(
            speed, cores, ladder.shares_cores, settings.fps, settings.floor_fps, settings.max_batch
        )
        logger.info("ready for sessions", extra={"places": places, "tiers": ladder.names, "speed": repr(speed)})
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                publisher = FramePublisher(redis, on_lost)
                generator = Generator(
                    settings,
                    Registry(redis),
                    AvatarStore.open(settings.avatar_store),
                    engine,
                    ladder,
                    places,
                    encoder_name,
                    clock,
                    metrics,
                )
                engine.start()
                probe = partial(ping, redis, clock, metrics)
                tasks = [
                    asyncio.create_task(keep_trying("probe", clock, metrics, probe, _PROBE_INTERVAL_S)),
                    asyncio.create_task(keep_trying("inbox", clock, metrics, generator.receive)),
                    asyncio.create_task(keep_trying("publish", clock, metrics, publisher.flush)),
                    asyncio.create_task(keep_trying("heartbeat", clock, metrics, generator.beat, HEARTBEAT_INTERVAL_S)),
                    asyncio.create_task(balance(), name="balance"),
                    asyncio.create_task(tidy(), name="tidy"),
                ]
                try:
                    yield lambda: _reasons(metrics, engine, tasks)
                finally:
                    await generator.drain(settings.drain_s)
                    await generator.close()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    await asyncio.to_thread(engine.close)

    return create_service("generator", metrics, run)


def _look_around(
    settings: GeneratorSettings,
    make_ladder: Callable[[GeneratorSettings, int], tuple[Ladder, Fallback | None]],
    cores: float,
    metrics: GeneratorMetrics,
) -> tuple[Ladder, str, Speed]:
    """Which tiers and which encoder run here, and how fast."""
    ladder, fallback = make_ladder(settings, max(1, round(cores)))
    if fallback is not None:
        logger.warning("no network runs here, faces are warped", extra={"reason": fallback.text})
        metrics.fell_back(fallback.reason)
    encoder_name = choose_encoder()
    metrics.generates_with(ladder.names, encoder_name)
    folder = settings.cache_folder or default_cache_folder()
    return ladder, encoder_name, measured_speed(ladder, encoder_name, settings.max_batch, cores, folder)


def _reasons(metrics: GeneratorMetrics, engine: Engine, tasks: list[asyncio.Task[None]]) -> dict[str, str]:
    reasons = {}
    if not metrics.redis_is_up:
        reasons["redis"] = "redis does not answer"
    if engine.failure:
        reasons["device"] = engine.failure
    if any(task.done() for task in tasks):
        reasons["loops"] = "a background loop has ended; the log says why"
    return reasons
