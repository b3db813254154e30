"""A gateway under uvicorn with a Redis of its own, and the plainest generator that speaks the real protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from mien_gateway.app import create_app
from mien_gateway.settings import GatewaySettings
from mien_shared.avatars import AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus.channels import GeneratorInbox
from mien_shared.bus.connection import BUS_ERRORS, open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import Control, GeneratorStatus, InboundMotion, StartSession, StopSession
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry
from mien_shared.keypoints import Keypoints

SECRET = "a secret of more than thirty-two bytes"
API_KEY = "an operator's key of thirty-two bytes or more"
AVATAR_ID = "someone"


@dataclass
class Gateway:
    """A running gateway, an operator's client for it, and one of anyone's."""

    url: str
    http: httpx.AsyncClient
    anyone: httpx.AsyncClient
    settings: GatewaySettings

    async def metric(self, name: str, **labels: str) -> float:
        """A sample's value as Prometheus would scrape it, 0 where there is none yet."""
        text = (await self.http.get("/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    async def reaches(self, value: float, name: str, **labels: str) -> None:
        """Wait until a sample has this value; a test that never gets there is ended by its runner."""
        async with asyncio.timeout(20):
            while await self.metric(name, **labels) != value:
                await asyncio.sleep(0.02)

    async def becomes_ready(self, status: int = 200) -> dict[str, Any]:
        """Wait until /readyz answers with this status."""
        async with asyncio.timeout(20):
            while (answer := await self.http.get("/readyz")).status_code != status:
                await asyncio.sleep(0.05)
        body: dict[str, Any] = answer.json()
        return body

    async def create_session(self) -> dict[str, Any]:
        answer = await self.http.post("/v1/sessions", json={"avatar_id": AVATAR_ID})
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body


@dataclass
class Generator:
    """Beats its heart, reads its inbox, holds what it is given."""

    redis: Redis
    generator_id: str
    capacity: int
    draining: bool = False
    motion: list[InboundMotion] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)

    async def beat(self) -> None:
        registry = Registry(self.redis)
        while True:
            with contextlib.suppress(*BUS_ERRORS):
                status = GeneratorStatus(
                    generator_id=self.generator_id,
                    capacity=self.capacity,
                    sessions=len(self.sessions),
                    backend="none",
                    draining=self.draining,
                )
                await registry.heartbeat(status, list(self.sessions))
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def read(self) -> None:
        inbox = GeneratorInbox(self.redis, self.generator_id)
        while True:
            try:
                messages = await inbox.read()
            except BUS_ERRORS:
                await asyncio.sleep(0.05)
                continue
            for message in messages:
                if isinstance(message, InboundMotion):
                    self.motion.append(message)
                    continue
                self.controls.append(message)
                if isinstance(message, StartSession):
                    self.sessions.add(message.session.session_id)
                if isinstance(message, StopSession):
                    self.sessions.discard(message.session_id)

    async def gets(self, count: int) -> list[InboundMotion]:
        """Wait until so many packets of motion have arrived."""
        async with asyncio.timeout(20):
            while len(self.motion) < count:
                await asyncio.sleep(0.01)
        return self.motion

    async def is_told(self, count: int) -> list[Control]:
        """Wait until so many control messages have arrived."""
        async with asyncio.timeout(20):
            while len(self.controls) < count:
                await asyncio.sleep(0.01)
        return self.controls


StartGateway = Callable[..., Awaitable[Gateway]]
StartGenerator = Callable[..., Awaitable[Generator]]
RunApp = Callable[[FastAPI], Awaitable[str]]


@pytest.fixture
def make_settings(redis_server: EmbeddedRedis, tmp_path: Path) -> Callable[..., GatewaySettings]:
    def make(**changes: Any) -> GatewaySettings:
        values = {
            "redis_url": redis_server.url,
            "token_secret": SECRET,
            "api_keys": [API_KEY],
            "avatar_store": f"file:{tmp_path / 'avatars'}",
        }
        return GatewaySettings.model_validate(values | changes)

    return make


@pytest_asyncio.fixture
async def start_gateway(run_app: RunApp, make_settings: Callable[..., GatewaySettings]) -> AsyncIterator[StartGateway]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(ready: bool = True, **changes: Any) -> Gateway:
            settings = make_settings(**changes)
            url = await run_app(create_app(settings))
            anyone = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=30))
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=30))
            http.headers["Authorization"] = f"Bearer {API_KEY}"
            gateway = Gateway(url, http, anyone, settings)
            record = AvatarRecord(
                avatar_id=AVATAR_ID,
                width=1280,
                height=720,
                face_box=FaceBox(x=448, y=120, size=384),
                keypoints=[tuple(row) for row in Keypoints.at_rest().rows().tolist()],
            )
            await AvatarStore.open(settings.avatar_store).put(record, b"\x89PNG")
            if ready:
                await gateway.becomes_ready()
            return gateway

        yield start


@pytest_asyncio.fixture
async def start_generator(redis_server: EmbeddedRedis) -> AsyncIterator[StartGenerator]:
    tasks: list[asyncio.Task[None]] = []
    async with open_redis(redis_server.url) as redis:

        async def start(generator_id: str = "g1", capacity: int = 4, draining: bool = False) -> Generator:
            generator = Generator(redis, generator_id, capacity, draining)
            tasks.append(asyncio.create_task(generator.beat()))
            tasks.append(asyncio.create_task(generator.read()))
            async with asyncio.timeout(20):
                while generator_id not in [found.generator_id for found in await Registry(redis).generators()]:
                    await asyncio.sleep(0.01)
            return generator

        yield start
        while left := [task for task in tasks if not task.done()]:
            for task in left:
                task.cancel()  # again, because redis-py may swallow a cancellation (supervisor.py says how)
            await asyncio.wait(left, timeout=0.5)
