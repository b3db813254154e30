"""Real Redis and real sockets for services that run in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis

#: Start an application on a free port; gives its http:// URL. It is taken down after the test.
RunApp = Callable[[FastAPI], Awaitable[str]]


@pytest_asyncio.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of that Redis, as the services open it."""
    async with open_redis(redis_server.url) as client:
        yield client


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done(), "the application did not start"
            await asyncio.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


@pytest_asyncio.fixture
async def run_app() -> AsyncIterator[RunApp]:
    async with AsyncExitStack() as stack:

        async def run(app: FastAPI) -> str:
            return await stack.enter_async_context(_running(app))

        yield run
