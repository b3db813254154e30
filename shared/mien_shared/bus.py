"""How every service holds on to Redis: fail fast in a call, keep trying in a loop, lose no process over it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mien_shared.clock import Clock
from mien_shared.embedded_redis import EmbeddedRedis
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

#: What a call to a Redis that has gone may raise.
BUS_ERRORS = (RedisError, OSError, TimeoutError)

#: Longest a blocking XREAD waits; well under the socket's own timeout.
BLOCK_MS = 1000
_SOCKET_TIMEOUT_S = 4.0
_CONNECT_TIMEOUT_S = 2.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0


def open_redis(url: str) -> Redis:
    """A client that tries a call twice at most (a pooled connection may be stale) and then says so."""
    return Redis.from_url(
        url,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[ConnectionError],
    )


@contextmanager
def redis_url(configured: str | None) -> Iterator[str]:
    """The configured server's URL, or that of an embedded server which ends with this context."""
    if configured:
        yield configured
        return
    with EmbeddedRedis() as server:
        logger.warning("REDIS_URL is not set: using an embedded Redis that no other service sees")
        yield server.url


async def ping(redis: Redis, clock: Clock, metrics: ServiceMetrics) -> None:
    """Ask Redis for an answer and measure how long it took; raises what Redis raises."""
    asked_s = clock.monotonic_s()
    await redis.ping()
    metrics.redis_round_trip(clock.monotonic_s() - asked_s)


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
