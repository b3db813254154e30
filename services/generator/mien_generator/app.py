"""Assembles the generator: starts its host, which starts all other processes, and stops them in order."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mien_generator.link import Link
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.host import SCRAPE_INTERVAL_S, TICK_S, Host, MachineUnusable, NotStarted
from mien_generator.settings import GeneratorSettings
from mien_shared.bus import rights
from mien_shared.bus.connection import open_redis, redis_url
from mien_shared.bus.registry import Registry
from mien_shared.clock import SystemClock
from mien_shared.http.service import create_service
from mien_shared.machine import usable_cores
from mien_shared.supervisor import Supervisor

logger = logging.getLogger(__name__)


def create_app(settings: GeneratorSettings, warm: Link) -> FastAPI:
    """The generator's application. Over HTTP it serves only /livez, /readyz and /metrics.

    warm: the link to the process that starts all others (`processes/warm.py`).
    """
    metrics, clock = GeneratorMetrics(), SystemClock()
    hosts: list[Host] = []

    @asynccontextmanager
    async def run(_: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        cores = settings.cores or usable_cores()
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                host = Host(settings, warm, cores, url, Registry(redis), clock, metrics)
                try:
                    await host.start()
                except (MachineUnusable, NotStarted) as error:
                    # A restart would fail in the same way. So stay up, report the reason as unready, take no session.
                    logger.error("this generator cannot generate faces", extra={"error": str(error)})
                    flaw = str(error)
                    supervisor.check("generator", lambda: flaw)
                    yield
                    await host.close()
                    return
                hosts.append(host)
                supervisor.watch_redis(redis, rights.GENERATOR)
                supervisor.check("workers", host.why_unready)
                supervisor.check("processes", lambda: host.failure, vital=True)
                supervisor.keep("processes", host.tick, TICK_S)
                supervisor.keep("metrics of processes", host.scrape, SCRAPE_INTERVAL_S)
                try:
                    yield
                finally:
                    await supervisor.aclose()
                    await host.close()

    async def exposition() -> bytes:
        return await hosts[0].exposition() if hosts else metrics.exposition()

    return create_service("generator", metrics, run, clock, exposition=exposition)
