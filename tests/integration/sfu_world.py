"""A session with pictures, Janus behind its WHIP front, and as many signaling services as a test starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
from integration.janus import BEARER, Janus, Subscriber, WhipFront
from integration.test_signaling_media import SESSION, Publisher, RunApp, settings
from integration.voice_peers import SECRET, until
from pydantic import SecretStr
from redis.asyncio import Redis

from mien_shared.bus.connection import open_redis
from mien_shared.bus.egress import Egresses, EgressOrder
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings

PATIENCE_S = 60.0


@dataclass
class SfuWorld:
    """See above. front_url: of the WHIP front."""

    redis: Redis
    publisher: Publisher
    janus: Janus
    front: WhipFront
    front_url: str
    stack: AsyncExitStack
    egresses: Egresses
    run_app: RunApp
    redis_server: EmbeddedRedis

    def settings(self, **changes: object) -> SignalingSettings:
        sfu = {"sfu_whip_url": f"{self.front_url}/whip/{{session_id}}", "sfu_bearer": SecretStr(BEARER)}
        return settings(self.redis_server).model_copy(update=sfu | changes)

    async def signaling(self, **changes: object) -> httpx.AsyncClient:
        url = await self.run_app(create_app(self.settings(**changes)))
        return await self.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))

    async def signaling_process(self, **changes: str) -> subprocess.Popen[bytes]:
        """A service as a separate process, which can be killed. changes: of its environment."""
        environment = os.environ | {
            "REDIS_URL": self.redis_server.url,
            "MIEN_PORT": "0",
            "MIEN_TOKEN_SECRET": SECRET,
            "MIEN_SFU_WHIP_URL": f"{self.front_url}/whip/{{session_id}}",
            "MIEN_SFU_BEARER": BEARER,
            **changes,
        }
        process = await asyncio.to_thread(
            subprocess.Popen, [sys.executable, "-m", "mien_signaling"], env=environment, stdout=subprocess.DEVNULL
        )
        self.stack.push_async_callback(asyncio.to_thread, process.wait)
        self.stack.callback(process.kill)
        return process

    async def order(self, wanted: bool = True) -> None:
        await self.egresses.order(SESSION.session_id, EgressOrder(wanted=wanted))

    async def state(self) -> str | None:
        _, state = await self.egresses.of_session(SESSION.session_id)
        return None if state is None else state.state

    async def becomes(self, state: str | None) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.state() != state:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def sfu_world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[SfuWorld]:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        publisher = Publisher(redis, latency_s=0.1)
        await stack.enter_async_context(publisher.live())
        janus = await stack.enter_async_context(Janus())
        front = WhipFront(janus)
        url = await run_app(front.app())
        yield SfuWorld(redis, publisher, janus, front, url, stack, Egresses(redis), run_app, redis_server)


async def sees(viewer: Subscriber, packets: int = 30) -> None:
    """Until so many more packets of the picture have arrived."""
    seen = len(viewer.picture.packets)
    await until(lambda: len(viewer.picture.packets) >= seen + packets, PATIENCE_S)
