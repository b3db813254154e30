"""Assembles the generator: probes the machine, builds the engine, starts its loops, and stops them in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import cv2
from fastapi import FastAPI

from mien_generator.capacity import Speed, capacity
from mien_generator.engine import Engine
from mien_generator.face.build import BackendUnavailable, Fallback, Ladders
from mien_generator.face.ladder import Ladder
from mien_generator.h264.encoder import NoH264Encoder, choose_h264_encoder
from mien_generator.measure import default_cache_folder, measured_speed
from mien_generator.memory import trim_heap
from mien_generator.metrics import GeneratorMetrics
from mien_generator.pipeline import Pipeline
from mien_generator.service import Generator
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarKind, AvatarStore
from mien_shared.bus import rights
from mien_shared.bus.channels import FramePublisher
from mien_shared.bus.connection import open_redis, redis_url
from mien_shared.bus.messages import EncodedFrame, KeyframeReason
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.service import create_service
from mien_shared.machine import usable_cores
from mien_shared.supervisor import Supervisor

logger = logging.getLogger(__name__)

#: Time between two decisions about tiers.
_BALANCE_INTERVAL_S = 0.25
#: Time between two returns of ended sessions' memory to the operating system.
_TRIM_INTERVAL_S = 10.0

MakeLadders = Callable[[GeneratorSettings, int], tuple[Ladders, Fallback | None]]


def create_app(
    settings: GeneratorSettings,
    make_ladders: MakeLadders,
) -> FastAPI:
    """The generator's application. Over HTTP it serves only /livez, /readyz and /metrics."""
    metrics, clock = GeneratorMetrics(), SystemClock()

    @asynccontextmanager
    async def run(_: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        cv2.setNumThreads(1)  # the pool's threads already use all cores
        cores = settings.cores or usable_cores()
        try:
            ladders, h264_name, speed = await asyncio.to_thread(_probe_machine, settings, make_ladders, cores, metrics)
        except (BackendUnavailable, NoH264Encoder, ValueError, OSError) as error:
            # A restart would fail in the same way. So stay up, report the reason as unready, and take no session.
            logger.error("this generator cannot generate faces", extra={"error": str(error)})
            flaw = str(error)
            supervisor.check("generator", lambda: flaw)
            yield
            return

        def publish(session_id: str, frame: EncodedFrame) -> None:
            loop.call_soon_threadsafe(publisher.push, session_id, frame)

        def on_lost(session_id: str, frames: int) -> None:
            metrics.lost(frames)
            engine.request_keyframe(session_id, KeyframeReason.REDIS)

        ladder = ladders[AvatarKind.PORTRAIT]
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
                    ladders,
                    places,
                    h264_name,
                    clock,
                    metrics,
                )
                engine.start()
                supervisor.watch_redis(redis, rights.GENERATOR)
                supervisor.check("device", lambda: engine.failure, vital=True)
                supervisor.keep("inbox", generator.receive)
                supervisor.keep("publish", publisher.flush)
                supervisor.keep("heartbeat", generator.beat, HEARTBEAT_INTERVAL_S)
                supervisor.keep("claims", generator.claim, HEARTBEAT_INTERVAL_S)
                supervisor.run("balance tiers", _balance_tiers(engine, clock))
                supervisor.run("trim memory", _trim_memory(engine, clock))
                try:
                    yield
                finally:
                    await generator.drain(settings.drain_s)
                    await generator.close()
                    await supervisor.aclose()
                    await asyncio.to_thread(engine.close)

    return create_service("generator", metrics, run, clock)


async def _balance_tiers(engine: Engine, clock: Clock) -> None:
    while True:
        engine.balance()
        await clock.sleep(_BALANCE_INTERVAL_S)


async def _trim_memory(engine: Engine, clock: Clock) -> None:
    ended = engine.ended
    while True:
        await clock.sleep(_TRIM_INTERVAL_S)
        if engine.ended != ended:
            ended = engine.ended
            await asyncio.to_thread(trim_heap)


def _probe_machine(
    settings: GeneratorSettings, make_ladders: MakeLadders, cores: float, metrics: GeneratorMetrics
) -> tuple[Ladders, str, Speed]:
    """Find out which tiers and which H.264 encoder this machine can run, and how fast they are."""
    ladders, fallback = make_ladders(settings, max(1, round(cores)))
    if fallback is not None:
        logger.warning("the network cannot run, warp makes the faces", extra={"reason": fallback.text})
        metrics.fell_back(fallback.reason)
    ladder: Ladder = ladders[AvatarKind.PORTRAIT]
    h264_name = choose_h264_encoder()
    metrics.generates_with(ladder.names, h264_name)
    folder = settings.cache_folder or default_cache_folder()
    return ladders, h264_name, measured_speed(ladder, h264_name, settings.max_batch, cores, folder)
