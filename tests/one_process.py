"""A generator in one process: a worker and its device, without a host. For tests with their own face generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mien_generator.capacity import capacity
from mien_generator.device.thread import DeviceThread
from mien_generator.engine.balance import Balancer
from mien_generator.engine.engine import Engine
from mien_generator.face.build import BackendUnavailable
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.device import MakeLadders, probe
from mien_generator.processes.messages import WorkerStart
from mien_generator.processes.worker import generating
from mien_generator.settings import GeneratorSettings
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.service import create_service
from mien_shared.machine import usable_cores
from mien_shared.supervisor import Supervisor


def create_app(settings: GeneratorSettings, make_ladders: MakeLadders) -> FastAPI:
    """The generator's application, with the faces of these ladders."""
    metrics, clock = GeneratorMetrics(), SystemClock()

    @asynccontextmanager
    async def run(_: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        cores = settings.cores or usable_cores()
        try:
            machine, ladder = await asyncio.to_thread(probe, settings, cores, make_ladders)
        except (BackendUnavailable, ValueError, OSError) as error:
            flaw = str(error)
            supervisor.check("generator", lambda: flaw)
            yield
            return
        if machine.fallback is not None:
            metrics.fell_back(machine.fallback[0])
        speed, costs = machine.speed.speed(), dict(enumerate(machine.speed.speed().device))
        measured = capacity(speed, cores, ladder.shares_cores, settings.fps, settings.floor_fps, settings.max_batch)
        assert settings.redis_url is not None
        start = WorkerStart(machine=machine, places=settings.capacity or measured, redis_url=settings.redis_url)
        async with generating(settings, start, clock, metrics, supervisor, threads=2) as (generator, engine):
            balancer = Balancer(
                costs,
                fps=settings.fps,
                floor_fps=settings.floor_fps,
                max_batch=settings.max_batch,
                shares_cores=ladder.shares_cores,
            )
            device = DeviceThread(ladder, costs, clock, metrics, fps=settings.fps, max_batch=settings.max_batch)
            if ladder.last > 0:
                engine.use(device.client(engine))
                engine.first_tier = 0
                device.start()
                supervisor.run("balance", _balance(engine, device, balancer, clock))
            try:
                yield
            finally:
                await generator.drain(settings.drain_s)
                if ladder.last > 0:
                    await asyncio.to_thread(device.close)

    return create_service("generator", metrics, run, clock)


async def _balance(engine: Engine, device: DeviceThread, balancer: Balancer, clock: Clock) -> None:
    while True:
        factor = device.load_factor if device.failure is None else None
        for step in balancer.steps(clock.monotonic_s(), engine.loads(), factor):
            engine.step(step.session_id, step.tier)
        await clock.sleep(0.25)
