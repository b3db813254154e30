"""Who watches a session, on Redis. Each signaling service writes its own viewers; gateways read and end them.

A service writes its whole list of a session at once, after every change and again every five seconds. A list that is
not written again expires (LIST_TTL_MS), so the viewers of a killed service vanish, and a Redis that comes back empty is
filled again. The count of a list has its own key, because every page asks for the count and only operators read lists.

To end a viewer, a gateway adds its id to a sorted set. Every service looks there for its own viewers, twice a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from mien_shared.bus import keys
from mien_shared.bus.messages import ViewerState
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_shared.bus.trip import Script, Trip

logger = logging.getLogger(__name__)

#: How long a service's list of viewers is valid after it was written.
LIST_TTL_MS = round(1.5 * KEEP_ALIVE_INTERVAL_S * 1000)
_LIFE_MS = round(keys.VIEWERS_S * 1000)
_ENDS_LIFE_MS = round(keys.VIEWER_ENDS_S * 1000)

_LIST: TypeAdapter[list[ViewerState]] = TypeAdapter(list[ViewerState])

# Replaces one service's list and its count, and deletes those of services that are silent. A session that has ended
# gets no keys again. The server's clock decides. A count is "UNTIL COUNT": until when it is valid (Unix ms). The list
# is deleted before it is written, because a full Redis refuses a write, but not in a script that has deleted something.
# KEYS: counts, lists, ended. ARGV: service, count, list or nothing, how long it is valid in ms, life of the keys in ms.
_PUT = Script("""
if redis.call('EXISTS', KEYS[3]) == 1 then return end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
local counts = redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  if tonumber(string.match(counts[i + 1], '^%d+')) <= now then
    redis.call('HDEL', KEYS[1], counts[i])
    redis.call('HDEL', KEYS[2], counts[i])
  end
end
if ARGV[3] == '' then return end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[4]) .. ' ' .. ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
""")

# Adds a viewer that must be ended, and forgets the orders that are older than the life of the key. The deletion comes
# first for the same reason. KEYS: ends. ARGV: viewer, life in ms.
_END = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")


class Viewers:
    """Reads and writes the viewers of sessions. Every method takes one round trip and raises the errors of Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    # Signaling

    async def exchange(
        self,
        service_id: str,
        lists: Mapping[str, Sequence[ViewerState]],
        watched: Iterable[str] = (),
        ttl_ms: int = LIST_TTL_MS,
    ) -> dict[str, frozenset[str]]:
        """Write a service's viewers by session, and return which viewers of the watched sessions it must end.

        A list replaces the service's earlier one; an empty list deletes it. ttl_ms: how long the lists are valid.
        """
        trip, ends = Trip(self._redis), list(watched)
        for session_id in ends:
            trip.add(partial(_read_ends, name=keys.viewer_ends(session_id)))
        for session_id, viewers in lists.items():
            names = [keys.viewer_counts(session_id), keys.viewer_lists(session_id), keys.ended(session_id)]
            connected = sum(viewer.state == "connected" for viewer in viewers)
            data = _LIST.dump_json(list(viewers)) if viewers else b""
            trip.run(_PUT, names, [service_id, connected, data, ttl_ms, _LIFE_MS])
        answers = await trip.go()
        return {
            session_id: frozenset(viewer_id.decode() for viewer_id in answer)
            for session_id, answer in zip(ends, answers, strict=False)
            if answer
        }

    # Gateways

    async def count(self, session_id: str) -> int:
        """How many viewers are connected, on all signaling services."""
        trip = Trip(self._redis)
        trip.add(lambda pipe: pipe.time())
        trip.add(lambda pipe: pipe.hgetall(keys.viewer_counts(session_id)))
        return sum(_valid(*await trip.go()).values())

    async def of_session(self, session_id: str) -> list[ViewerState]:
        """The viewers on all signaling services, connected or connecting; the one that joined first comes first."""
        trip = Trip(self._redis)
        trip.add(lambda pipe: pipe.time())
        trip.add(lambda pipe: pipe.hgetall(keys.viewer_counts(session_id)))
        trip.add(lambda pipe: pipe.hgetall(keys.viewer_lists(session_id)))
        now, counts, lists = await trip.go()
        found = [viewer for service in _valid(now, counts) for viewer in _parsed(lists.get(service))]
        return sorted(found, key=lambda viewer: (viewer.joined_at_ms, viewer.viewer_id))

    async def end(self, session_id: str, viewer_id: str) -> None:
        """Tell all signaling services to end a viewer. The one that has it does so within a second."""
        trip = Trip(self._redis)
        trip.run(_END, [keys.viewer_ends(session_id)], [viewer_id, _ENDS_LIFE_MS])
        await trip.go()


def _read_ends(pipe: Pipeline, name: str) -> object:
    return pipe.zrange(name, 0, -1)


def _valid(now: tuple[int, int], counts: Mapping[bytes, bytes]) -> dict[bytes, int]:
    """The counts of the services that are not silent. now: the server's answer to TIME, seconds and microseconds."""
    now_ms = now[0] * 1000 + now[1] // 1000
    split = {service: value.split() for service, value in counts.items()}
    return {service: int(count) for service, (until_ms, count) in split.items() if int(until_ms) > now_ms}


def _parsed(data: bytes | None) -> list[ViewerState]:
    """A service's list; empty if a service of another version wrote one that cannot be read."""
    try:
        return _LIST.validate_json(data) if data else []
    except ValidationError as error:
        # The error's text would show the values, and no log has a viewer's id.
        logger.warning("unreadable list of viewers ignored", extra={"errors": error.error_count()})
        return []
