"""How every service connects to Redis: a call fails fast, and what may fail is named. `loops.py` keeps trying."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.clock import Clock
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

#: What a call to a Redis that has gone may raise.
BUS_ERRORS = (RedisError, OSError, TimeoutError)

#: Longest a blocking XREAD waits; well under the socket's own timeout.
BLOCK_MS = 1000
_SOCKET_TIMEOUT_S = 4.0
_CONNECT_TIMEOUT_S = 2.0


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
