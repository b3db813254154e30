"""The system under load: its raised limits and its processes."""

from __future__ import annotations

from mien_client.launcher import Stack
from mien_shared.bus.connection import open_redis

_ANY = "1000000"
#: All clients come from one address, and a generator must accept more sessions than it measures for itself.
UNLIMITED = {
    "MIEN_CAPACITY": "2000",
    "MIEN_MAX_VIEWERS": "2000",
    "MIEN_MAX_VIEWERS_PER_SESSION": "2000",
    "MIEN_JOINS_PER_MINUTE": _ANY,
    "MIEN_SESSION_JOINS_PER_MINUTE": _ANY,
    "MIEN_UPDATES_PER_MINUTE": _ANY,
    "MIEN_REQUESTS_PER_MINUTE": _ANY,
    "MIEN_SESSIONS_PER_MINUTE": _ANY,
    "MIEN_LOG_LEVEL": "WARNING",
}


async def pids_of(stack: Stack, redis_url: str) -> dict[str, int]:
    """The process ids of Redis and of all running services, by name."""
    running = [name for name in stack.services if name not in stack.ended()]
    async with open_redis(redis_url) as redis:
        return {name: stack.pid(name) for name in running} | {"redis": int((await redis.info("server"))["process_id"])}
