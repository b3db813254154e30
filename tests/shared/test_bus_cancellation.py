from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from mien_shared.clock import SystemClock
from mien_shared.metrics import ServiceMetrics
from mien_shared.supervisor import keep_trying


@pytest.mark.parametrize("error", [None, RedisConnectionError("gone")])
async def test_a_cancellation_that_a_step_swallows_still_ends_the_loop(error: Exception | None) -> None:
    begun = asyncio.Event()

    async def step() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    task = asyncio.create_task(keep_trying("test", SystemClock(), ServiceMetrics("test"), step))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
