"""A worker: a complete generator with one pool thread. Its sessions, their leases and their frames are its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import cv2

from mien_generator.device.remote import HANGS_S, RemoteDevice
from mien_generator.engine.engine import Engine
from mien_generator.engine.pipeline import Pipeline
from mien_generator.face.ladder import Tiers
from mien_generator.face.warp import WarpGenerator
from mien_generator.link import Link, LinkClosed
from mien_generator.memory import trim_heap
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.messages import (
    DeviceHangs,
    Load,
    Message,
    MoveAway,
    Orders,
    Scrape,
    Scraped,
    Stop,
    UseDevice,
    WorkerStart,
    WorkerStatus,
    parse,
)
from mien_generator.service import Generator
from mien_generator.settings import GeneratorSettings
from mien_shared import spans
from mien_shared.avatars import AvatarKind, AvatarStore
from mien_shared.bus import rights
from mien_shared.bus.channels import FramePublisher
from mien_shared.bus.connection import open_redis
from mien_shared.bus.messages import EncodedFrame, KeyframeReason
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry
from mien_shared.clock import Clock, SystemClock
from mien_shared.supervisor import Supervisor

logger = logging.getLogger(__name__)

_STATUS_INTERVAL_S = 0.25
#: Time between two returns of ended sessions' memory to the operating system.
_TRIM_INTERVAL_S = 10.0


def run(link: Link, settings: GeneratorSettings, start: WorkerStart | None) -> None:
    """Serve sessions until the host says Stop or ends."""
    if start is None:
        raise ValueError("a worker needs to know its machine")
    spans.configure("generator")
    asyncio.run(_Worker(link, settings, start).serve())


@asynccontextmanager
async def generating(
    settings: GeneratorSettings,
    start: WorkerStart,
    clock: Clock,
    metrics: GeneratorMetrics,
    supervisor: Supervisor,
    threads: int = 1,
) -> AsyncIterator[tuple[Generator, Engine]]:
    """A generator on Redis and its engine, running; closed at the end. The caller drains it before."""
    loop = asyncio.get_running_loop()
    cv2.setNumThreads(1)  # the pool's threads of all workers already use all cores

    def publish(session_id: str, frame: EncodedFrame) -> None:
        loop.call_soon_threadsafe(publisher.push, session_id, frame)

    def on_lost(session_id: str, frames: int) -> None:
        metrics.lost(frames)
        engine.request_keyframe(session_id, KeyframeReason.REDIS)

    names, backends = zip(*start.machine.tiers, strict=True)
    tiers = Tiers(names, backends, WarpGenerator())
    metrics.generates_with(names, start.machine.h264_encoder)
    engine = Engine(tiers, Pipeline(tiers, clock, metrics, publish), clock, metrics, fps=settings.fps, threads=threads)
    async with open_redis(start.redis_url) as redis:
        publisher = FramePublisher(redis, on_lost)
        generator = Generator(
            settings,
            Registry(redis),
            AvatarStore.open(settings.avatar_store),
            engine,
            {AvatarKind.PORTRAIT: backends[0]},
            start.places,
            start.machine.h264_encoder,
            clock,
            metrics,
        )
        engine.start()
        supervisor.watch_redis(redis, rights.GENERATOR)
        supervisor.check("engine", lambda: engine.failure, vital=True)
        supervisor.keep("inbox", generator.receive)
        supervisor.keep("publish", publisher.flush)
        supervisor.keep("heartbeat", generator.beat, HEARTBEAT_INTERVAL_S)
        supervisor.keep("claims", generator.claim, HEARTBEAT_INTERVAL_S)
        supervisor.run("trim memory", _trim_memory(engine, clock))
        try:
            yield generator, engine
        finally:
            await generator.close()
            await supervisor.aclose()
            await asyncio.to_thread(engine.close)


async def _trim_memory(engine: Engine, clock: Clock) -> None:
    ended = engine.ended
    while True:
        await clock.sleep(_TRIM_INTERVAL_S)
        if engine.ended != ended:
            ended = engine.ended
            await asyncio.to_thread(trim_heap)


class _Worker:
    """The worker's side of its link: it reports, and does what the host says."""

    def __init__(self, link: Link, settings: GeneratorSettings, start: WorkerStart) -> None:
        self._link = link
        self._settings = settings
        self._start = start
        self._clock = SystemClock()
        self._metrics = GeneratorMetrics()
        self._device: RemoteDevice | None = None
        self._stop = asyncio.Event()
        self._host_is_gone = False
        self._moving: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        supervisor = Supervisor(self._clock, self._metrics)
        self._metrics.watch_readiness(lambda: not supervisor.unready())
        supervisor.run("event loop lag", self._metrics.watch_event_loop(self._clock))
        supervisor.started()
        async with generating(self._settings, self._start, self._clock, self._metrics, supervisor) as (
            generator,
            engine,
        ):
            self._listen(generator, engine)
            report = asyncio.create_task(self._report(generator, engine, supervisor), name="report")
            await self._stop.wait()
            if not self._host_is_gone:
                await generator.drain(self._settings.drain_s)
            report.cancel()
        self._send(Scraped(number=0, text=self._metrics.exposition().decode()))

    def _listen(self, generator: Generator, engine: Engine) -> None:
        """Hear the host on a thread: a descriptor may come with a message, which the event loop cannot receive."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            try:
                while True:
                    data, descriptors = self._link.receive()
                    loop.call_soon_threadsafe(self._obey, generator, engine, parse(data), descriptors)
            except LinkClosed:
                loop.call_soon_threadsafe(self._lose_host)

        threading.Thread(target=listen, name="host", daemon=True).start()

    def _lose_host(self) -> None:
        logger.warning("the host has ended: ending too")
        self._host_is_gone = True
        self._stop.set()

    def _obey(self, generator: Generator, engine: Engine, message: Message, descriptors: list[int]) -> None:
        match message:
            case Orders(steps=steps, first_tier=first_tier, places=places):
                generator.offer_places(places)
                if self._device is not None:
                    engine.first_tier = first_tier
                for session_id, tier in steps.items():
                    engine.step(session_id, tier)
            case UseDevice():
                self._use_device(engine, descriptors.pop())
            case MoveAway(sessions=count):
                task = asyncio.create_task(generator.move_away(count), name="move away")
                self._moving.add(task)
                task.add_done_callback(self._moving.discard)
            case Scrape(number=number):
                self._send(Scraped(number=number, text=self._metrics.exposition().decode()))
            case Stop():
                self._stop.set()
            case other:
                logger.error("the host sent a message that is not for workers", extra={"message_kind": other.kind})
        for descriptor in descriptors:
            os.close(descriptor)

    def _use_device(self, engine: Engine, descriptor: int) -> None:
        if self._device is not None:
            self._device.close()
        self._device = RemoteDevice(Link.over(descriptor, waits=False), engine)
        engine.use(self._device)
        self._device.start()

    async def _report(self, generator: Generator, engine: Engine, supervisor: Supervisor) -> None:
        while True:
            if self._device is not None and self._device.waits_s > HANGS_S:
                self._device.close()
                self._send(DeviceHangs())
            if self._device is not None and self._device.is_lost:
                self._device = None
            self._send(
                WorkerStatus(
                    generator_id=generator.generator_id,
                    session_ids=[record.session_id for record in engine.records()],
                    loads=[
                        Load(
                            session_id=one.session_id,
                            tier=one.tier,
                            wanted_fps=one.wanted_fps,
                            drawn_fps=one.drawn_fps,
                            since_s=one.since_s,
                        )
                        for one in engine.loads()
                    ],
                    places=generator.places,
                    is_overloaded=engine.is_overloaded,
                    has_device=self._device is not None,
                    fatal=supervisor.fatal(),
                    unready=supervisor.unready(),
                )
            )
            await asyncio.sleep(_STATUS_INTERVAL_S)

    def _send(self, message: Message) -> None:
        try:
            self._link.send(message.to_bytes())
        except LinkClosed:
            pass  # the thread that hears the host notices it too
