"""The session registry on Redis: the sessions, the live generators, and which generator holds which session.

The users of a session keep it alive (a gateway with its uplink, a signaling service with its viewers): each writes the
record again every few seconds. So the clients fill a Redis server again that comes back empty, and a session without
users ends by itself. A generator holds a session by a lease that it renews. When a lease expires, another generator may
claim the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.messages import GeneratorStatus, SessionRecord, SessionStats

#: A record that is not written again within this time expires.
SESSION_TTL_S = 60
#: How often the users of a session write its record again.
KEEP_ALIVE_INTERVAL_S = 5.0
#: A generator that is silent for this long loses its sessions. It sends four heartbeats in this time.
LEASE_TTL_MS = 1600
HEARTBEAT_INTERVAL_S = 0.4
#: How long a slot stays reserved for a session until its generator renews it.
RESERVATION_MS = 4000
_ENDED_TTL_S = 120
_STATS_TTL_S = 5
_VIEWER_TTL_S = 1.5 * KEEP_ALIVE_INTERVAL_S

# Writes the record unless the session has ended. KEYS: record, ended. ARGV: record, ttl.
_KEEP_ALIVE = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""

# Takes or renews the lease unless another generator holds it. KEYS: lease. ARGV: generator, ttl in ms.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# Takes or renews the lease unless another generator holds it. Returns the state of the session (see Renewal).
# KEYS: lease, record, ended. ARGV: generator, ttl in ms.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'taken_over' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then return 'held' end
if redis.call('EXISTS', KEYS[3]) == 1 then return 'ended' end
return 'unrecorded'
"""

# Transfers the lease if `from` holds it. KEYS: lease. ARGV: from, to, ttl in ms.
_TRANSFER = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

# Deletes the lease if this generator holds it. KEYS: lease. ARGV: generator.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# Takes or renews a slot; fails if none is free. Slots are a sorted set: the score is the server's time at which a slot
# expires.
# KEYS: slots. ARGV: session, capacity, ttl in ms.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 60000)
return 1
"""

# Takes or renews slots without a check of the capacity, and frees expired ones. KEYS: slots. ARGV: ttl in ms, sessions.
_KEEP_SLOTS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapses = now + ARGV[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], lapses, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], 60000)
"""

# Returns how many slots are taken. KEYS: slots.
_TAKEN = """
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZCARD', KEYS[1])
"""


class Renewal(StrEnum):
    """What a generator learns when it renews a lease."""

    HELD = "held"
    TAKEN_OVER = "taken_over"  # another generator holds the session
    ENDED = "ended"
    UNRECORDED = "unrecorded"  # held, but the record has expired, or Redis came back empty


class Registry:
    """Reads and writes the registry. Every method raises the errors of Redis (BUS_ERRORS)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._keep_alive = redis.register_script(_KEEP_ALIVE)
        self._hold = redis.register_script(_HOLD)
        self._transfer = redis.register_script(_TRANSFER)
        self._release = redis.register_script(_RELEASE)
        self._reserve = redis.register_script(_RESERVE)
        self._taken = redis.register_script(_TAKEN)
        self._renew = redis.register_script(_RENEW)
        self._keep_slots = redis.register_script(_KEEP_SLOTS)

    # Sessions

    async def keep_alive(self, session: SessionRecord) -> bool:
        """Write a session's record for the first time or again; False if the session has ended."""
        names = [keys.record(session.session_id), keys.ended(session.session_id)]
        alive = await self._keep_alive(keys=names, args=[session.to_bytes(), SESSION_TTL_S])
        if alive:
            await self.redis.sadd(keys.SESSIONS, session.session_id)
        return bool(alive)

    async def session(self, session_id: str) -> SessionRecord | None:
        data = await self.redis.get(keys.record(session_id))
        return SessionRecord.model_validate_json(data) if data else None

    async def sessions(self) -> list[SessionRecord]:
        """All live sessions, oldest first. Ids whose record has expired are removed."""
        return await self._records(sorted(name.decode() for name in await self.redis.smembers(keys.SESSIONS)))

    async def _records(self, ids: Sequence[str]) -> list[SessionRecord]:
        if not ids:
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for session_id in ids:
                pipe.get(keys.record(session_id))
            records = await pipe.execute()
        found = []
        for session_id, data in zip(ids, records, strict=True):
            if data is None:
                await self.redis.srem(keys.SESSIONS, session_id)
            else:
                found.append(SessionRecord.model_validate_json(data))
        return sorted(found, key=lambda record: record.created_at_ms)

    async def end_session(self, session_id: str) -> None:
        """Delete a session for good: a concurrent keep-alive cannot write its record again."""
        await self.redis.set(keys.ended(session_id), b"1", ex=_ENDED_TTL_S)
        await self.redis.delete(
            keys.record(session_id),
            keys.lease(session_id),
            keys.stats(session_id),
            keys.video(session_id),
            keys.viewers(session_id),
        )
        await self.redis.srem(keys.SESSIONS, session_id)

    async def was_ended(self, session_id: str) -> bool:
        return bool(await self.redis.exists(keys.ended(session_id)))

    async def put_stats(self, stats: Mapping[str, SessionStats]) -> None:
        """Write the statistics of sessions, by session id, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for session_id, figures in stats.items():
                pipe.set(keys.stats(session_id), figures.to_bytes(), ex=_STATS_TTL_S)
            await pipe.execute()

    async def stats(self, session_id: str) -> SessionStats | None:
        data = await self.redis.get(keys.stats(session_id))
        return SessionStats.model_validate_json(data) if data else None

    async def put_viewers(self, session_id: str, viewer_ids: Sequence[str], now_s: float) -> None:
        """Record the viewers that watch at `now_s` (Unix seconds). Each counts until its next keep-alive is overdue."""
        if viewer_ids:
            until_s = now_s + _VIEWER_TTL_S
            await self.redis.zadd(keys.viewers(session_id), dict.fromkeys(viewer_ids, until_s))
            await self.redis.zremrangebyscore(keys.viewers(session_id), "-inf", now_s)
            await self.redis.expire(keys.viewers(session_id), SESSION_TTL_S)

    async def viewers(self, session_id: str, now_s: float) -> int:
        """How many viewers a session has on all signaling services."""
        return int(await self.redis.zcount(keys.viewers(session_id), now_s, "+inf"))

    # Generators

    async def heartbeat(self, status: GeneratorStatus) -> None:
        """Keep a generator listed as live for another LEASE_TTL_MS."""
        await self.redis.set(keys.status(status.generator_id), status.to_bytes(), px=LEASE_TTL_MS)
        await self.redis.sadd(keys.GENERATORS, status.generator_id)

    async def generators(self) -> list[GeneratorStatus]:
        """All live generators, in the order of their ids."""
        found = []
        for name in sorted(await self.redis.smembers(keys.GENERATORS)):
            generator_id = name.decode()
            data = await self.redis.get(keys.status(generator_id))
            if data is None:
                await self.redis.srem(keys.GENERATORS, generator_id)
            else:
                found.append(GeneratorStatus.model_validate_json(data))
        return found

    async def remove_generator(self, generator_id: str) -> None:
        """Remove a generator that ends."""
        await self.redis.srem(keys.GENERATORS, generator_id)
        await self.redis.delete(keys.status(generator_id), keys.slots(generator_id))

    async def taken_slots(self, generator_id: str) -> int:
        """How many slots of a generator are in use or reserved."""
        return int(await self._taken(keys=[keys.slots(generator_id)], args=[]))

    async def reserve(self, generator_id: str, session_id: str, capacity: int, ttl_ms: int = RESERVATION_MS) -> bool:
        """Take or renew one of a generator's slots for `ttl_ms`, atomically; False if all slots are taken."""
        return bool(await self._reserve(keys=[keys.slots(generator_id)], args=[session_id, capacity, ttl_ms]))

    async def free_slot(self, generator_id: str, session_id: str) -> None:
        await self.redis.zrem(keys.slots(generator_id), session_id)

    # Leases

    async def hold(self, generator_id: str, session_id: str, ttl_ms: int = LEASE_TTL_MS) -> bool:
        """Take or renew a session's lease; False if another generator holds it."""
        return bool(await self._hold(keys=[keys.lease(session_id)], args=[generator_id, ttl_ms]))

    async def renew(self, generator_id: str, session_ids: Sequence[str]) -> dict[str, Renewal]:
        """Renew the leases of a generator's sessions, and the slots of the sessions that it still holds.

        Takes three round trips for any number of sessions.
        """
        if not session_ids:
            return {}
        async with self.redis.pipeline(transaction=False) as pipe:
            for session_id in session_ids:
                names = [keys.lease(session_id), keys.record(session_id), keys.ended(session_id)]
                await self._renew(keys=names, args=[generator_id, LEASE_TTL_MS], client=pipe)
            found = [Renewal(answer.decode()) for answer in await pipe.execute()]
        renewals = dict(zip(session_ids, found, strict=True))
        ours = [name for name, renewal in renewals.items() if renewal in {Renewal.HELD, Renewal.UNRECORDED}]
        if ours:
            await self._keep_slots(keys=[keys.slots(generator_id)], args=[RESERVATION_MS, *ours])
        return renewals

    async def transfer(self, from_id: str, to_id: str, session_id: str, ttl_ms: int = RESERVATION_MS) -> bool:
        """Transfer a session's lease to another generator; False if `from_id` does not hold it."""
        return bool(await self._transfer(keys=[keys.lease(session_id)], args=[from_id, to_id, ttl_ms]))

    async def release(self, generator_id: str, session_id: str) -> None:
        """Free the session's slot on this generator, and delete the lease if this generator holds it."""
        await self._release(keys=[keys.lease(session_id)], args=[generator_id])
        await self.free_slot(generator_id, session_id)

    async def owner(self, session_id: str) -> str | None:
        """The generator that holds a session, None if no generator does."""
        data = await self.redis.get(keys.lease(session_id))
        return data.decode() if data else None

    async def owners(self, session_ids: Sequence[str]) -> dict[str, str]:
        """The generator of each session. Sessions that no generator holds are left out. One round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for session_id in session_ids:
                pipe.get(keys.lease(session_id))
            values = await pipe.execute()
        return {session_id: value.decode() for session_id, value in zip(session_ids, values, strict=True) if value}

    async def orphans(self) -> Iterable[SessionRecord]:
        """Live sessions that no generator holds. Two round trips while every session is held."""
        ids = sorted(name.decode() for name in await self.redis.smembers(keys.SESSIONS))
        held = await self.owners(ids)
        return await self._records([session_id for session_id in ids if session_id not in held])
