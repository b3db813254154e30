"""Fixture: all services in their own processes, on an embedded Redis that the tests may stop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from e2e.system import System

from mien_client.launcher import Stack, StackOptions
from mien_shared.bus.embedded_redis import EmbeddedRedis


@pytest_asyncio.fixture
async def system(redis_server: EmbeddedRedis) -> AsyncIterator[System]:
    options = StackOptions(
        gateway_port=0,
        signaling_port=0,
        redis_url=redis_server.url,
        # warp, because these tests do not depend on how fast a busy machine draws. The tests of `mien demo` run the
        # network.
        generator_env={"MIEN_CAPACITY": "6", "MIEN_FACE_BACKEND": "warp"},
    )
    async with Stack(options) as stack:
        yield System(stack, redis_server)
