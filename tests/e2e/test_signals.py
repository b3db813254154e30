"""Signals to services: the first one drains, the second one ends the process at once. The exit status shows which."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from mien_client.launcher import free_port
from mien_shared.bus.channels import send_control
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord, StartSession
from mien_shared.bus.registry import RESERVATION_MS, Registry

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def service(name: str, redis: EmbeddedRedis, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    port = free_port()
    own = {
        "REDIS_URL": redis.url,
        "MIEN_PORT": str(port),
        "MIEN_TOKEN_SECRET": "a secret of thirty-two bytes or more",
        "MIEN_API_KEYS": "an operator's key of thirty-two bytes or more",
        "MIEN_AVATAR_STORE": f"file:{redis.folder}/avatars",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"mien_{name}",
        env={**os.environ, **own, **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(30):
            while True:
                try:
                    if (await http.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["gateway", "generator", "signaling"])
async def test_an_idle_service_ends_at_once_with_status_0(
    name: str, number: signal.Signals, redis_server: EmbeddedRedis
) -> None:
    async with service(name, redis_server) as process:
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_generator_with_a_session_waits_for_another_and_a_second_signal_forces_it(
    redis_server: EmbeddedRedis,
) -> None:
    async with (
        service("gateway", redis_server),
        service("generator", redis_server, MIEN_DRAIN_S="60") as process,
        open_redis(redis_server.url) as redis,
    ):
        registry = Registry(redis)
        [generator] = await registry.generators()
        session = SessionRecord(session_id="s1", avatar_id="mien", created_at_ms=time.time_ns() // 1_000_000)
        await registry.keep_alive(session)
        await registry.reserve(generator.generator_id, "s1", 1)
        await registry.hold(generator.generator_id, "s1", RESERVATION_MS)
        await send_control(redis, generator.generator_id, StartSession(session=session))
        async with asyncio.timeout(10):
            while await registry.stats("s1") is None:
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            while not (await registry.generators())[0].draining:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert process.returncode is None, "it still drains"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 2) == 128 + signal.SIGTERM
