"""How every service connects to Redis. A call fails fast with one of BUS_ERRORS; `supervisor.py` tries again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from mien_shared.bus.address import Topology, parse_address
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.masters import MasterPool

logger = logging.getLogger(__name__)

#: The errors that a call raises when Redis is not available.
BUS_ERRORS = (RedisError, OSError, TimeoutError)

#: Longest time that a blocking XREAD waits; well below the socket's timeout.
BLOCK_MS = 1000
_SOCKET_TIMEOUT_S = 4.0
_CONNECT_TIMEOUT_S = 2.0


def open_redis(url: str) -> Redis:
    """A client that tries a call at most twice, because a pooled connection may be stale, and then raises the error.

    url: any form of `address.py`; raises RedisUrlError for another. Nothing is connected yet.
    """
    address = parse_address(url)
    limits = {
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [ConnectionError],
        # CLIENT SETINFO and CLIENT MAINT_NOTIFICATIONS would be two more rights that every user needs.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.topology is Topology.SERVER:
        return Redis.from_url(url, **limits)
    return Redis.from_pool(MasterPool(address, **(limits | dict(address.options))))


@contextmanager
def redis_url(configured: str | None) -> Iterator[str]:
    """The URL of the configured server, or of an embedded server that ends with this context."""
    if configured:
        yield configured
        return
    with EmbeddedRedis() as server:
        logger.warning("REDIS_URL is not set: using an embedded Redis that no other service uses")
        yield server.url
