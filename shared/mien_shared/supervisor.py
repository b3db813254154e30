"""A loop that outlives Redis: it waits while Redis is away and goes on when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.clock import Clock
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0


async def keep_trying(
    name: str, clock: Clock, metrics: ServiceMetrics, step: Callable[[], Awaitable[None]], pause_s: float = 0.0
) -> None:
    """Run `step` every `pause_s` until cancelled; when Redis fails it, wait (0.05 s doubling to 1 s) and go on."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            await step()
        except BUS_ERRORS as error:
            _heed_cancellation()
            if wait_s == _FIRST_WAIT_S:
                logger.warning("redis failed, trying again", extra={"loop": name, "error": str(error)})
            metrics.redis_failed()
            await clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        else:
            _heed_cancellation()
            if wait_s > _FIRST_WAIT_S:
                logger.info("redis answers again", extra={"loop": name})
            metrics.redis_answered()
            wait_s = _FIRST_WAIT_S
            if pause_s:
                await clock.sleep(pause_s)


def _heed_cancellation() -> None:
    """Raise a cancellation that got lost: redis-py sends through asyncio.wait_for, and Python 3.11's swallows one that
    arrives together with its result (fixed in 3.12). The task would run on, and whoever waits for its end with it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
