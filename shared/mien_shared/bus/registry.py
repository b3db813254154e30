"""The session registry on Redis: the sessions, the live generators, and which generator holds which session.

The users of a session keep it alive (a gateway with its uplink, a signaling service with its viewers): each writes the
record again every few seconds. So the clients fill a Redis server again that comes back empty, and a session without
users ends by itself. A generator holds a session by a lease that it renews. When a lease expires, another generator may
claim the session.

Ended means ended. An end leaves a mark, which lives for an hour, and a record is not written again while the mark is
there. A user that was away for longer cannot know: it writes no record that is missing (`SessionRecord.seen_ms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from mien_shared.bus import keys
from mien_shared.bus.messages import EndReason, GeneratorStatus, SessionRecord, SessionStats
from mien_shared.bus.trip import Argument, Script, Trip

#: How often the users of a session write its record again.
KEEP_ALIVE_INTERVAL_S = 5.0
#: A generator that is silent for this long loses its sessions. It sends four heartbeats in this time.
LEASE_TTL_MS = round(keys.STATUS_S * 1000)
HEARTBEAT_INTERVAL_S = 0.4
#: How long a slot stays reserved for a session until its generator renews it.
RESERVATION_MS = round(keys.LEASE_S * 1000)
_SLOTS_MS = round(keys.SLOTS_S * 1000)
#: A session with which this many devices were lost is ended: it may be the cause.
_DEVICES_LOST = 2

# Notes that a session has a speaker now. The server's clock decides, for a service's clock may be set anew.
# KEYS: speaker. ARGV: life in seconds.
_SPEAKER_SEEN = Script("""
redis.call('SET', KEYS[1], redis.call('TIME')[1], 'EX', ARGV[1])
""")

# For how many seconds a session has had no speaker. KEYS: speaker. ARGV: life in seconds.
_WITHOUT_SPEAKER = Script("""
local now = redis.call('TIME')[1]
redis.call('SET', KEYS[1], now, 'EX', ARGV[1], 'NX')
return now - redis.call('GET', KEYS[1])
""")

# Writes the record unless the session has ended, or may have ended: a record that is missing was deleted, or it
# expired, or Redis came back empty. It was not deleted if every mark since the caller last saw it would still be there.
# Returns the time by the server's clock, or 0. KEYS: record, ended.
# ARGV: record, its life in s, when the caller last saw it (ms by the server's clock, empty for a new session), life of
# a mark in ms.
_KEEP_ALIVE = Script("""
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = tonumber(ARGV[3])
if seen and now - seen >= tonumber(ARGV[4]) and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return now
""")

# Deletes everything of a session, then marks it as ended. The order matters: a full Redis refuses a SET, but not in a
# script that has deleted something before. KEYS: those to delete, ended. ARGV: life in ms, reason.
_END = Script("""
redis.call('DEL', unpack(KEYS, 1, #KEYS - 1))
redis.call('SET', KEYS[#KEYS], ARGV[2], 'PX', ARGV[1])
""")

# Takes or renews the lease unless another generator holds it. KEYS: lease. ARGV: generator, ttl in ms.
_HOLD = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

# Renews the lease unless another generator holds it or the session has ended. Writes the statistics while the session
# is recorded. Returns a Renewal.
# KEYS: lease, record, ended, stats. ARGV: generator, ttl in ms, statistics or nothing, their life in s.
_RENEW = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'taken_over' end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('DEL', KEYS[1])
  return 'ended'
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 0 then return 'unrecorded' end
if ARGV[3] ~= '' then redis.call('SET', KEYS[4], ARGV[3], 'EX', ARGV[4]) end
return 'held'
""")

# Takes the lease if the session is recorded and has not ended, and no other generator holds it. Returns a Renewal.
# KEYS: lease, record, ended. ARGV: generator, ttl in ms.
_TAKE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'taken_over' end
local flaw = redis.call('EXISTS', KEYS[3]) == 1 and 'ended' or redis.call('EXISTS', KEYS[2]) == 0 and 'unrecorded'
if flaw then
  redis.call('DEL', KEYS[1])
  return flaw
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'held'
""")

# Transfers the lease if `from` holds it. KEYS: lease. ARGV: from, to, ttl in ms.
_TRANSFER = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

# Deletes the lease if this generator holds it. KEYS: lease. ARGV: generator.
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# Takes or renews a slot; fails if none is free. Slots are a sorted set: the score is the server's time at which a slot
# expires.
# KEYS: slots. ARGV: session, capacity, ttl in ms, life of the key in ms.
_RESERVE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# Takes or renews slots without a check of the capacity, and frees expired ones.
# KEYS: slots. ARGV: ttl in ms, life of the key in ms, sessions.
_KEEP_SLOTS = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapses = now + ARGV[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], lapses, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# Returns how many slots are taken. KEYS: slots.
_TAKEN = Script("""
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZCARD', KEYS[1])
""")


class Renewal(StrEnum):
    """What a generator learns when it takes or renews a lease."""

    HELD = "held"
    TAKEN_OVER = "taken_over"  # another generator holds the session
    ENDED = "ended"
    UNRECORDED = "unrecorded"  # the record has expired, or Redis came back empty; a lease is renewed nevertheless
    FULL = "full"  # not taken: the generator has no free slot


@dataclass(frozen=True, slots=True)
class UplinkState:
    """What a gateway must know of an uplink's session.

    owner: the generator that holds the session. connection_id: the connection that owns the uplink. end_reason: why the
    session has ended, as the registry stores it; None while it lives.
    """

    owner: str | None
    connection_id: str | None
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class OpenUplink:
    """An uplink that is open on a gateway: its session, and the connection that owns it."""

    session: SessionRecord
    connection_id: str


class Registry:
    """Reads and writes the registry. Every method raises the errors of Redis (BUS_ERRORS)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def _run(self, script: Script, names: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        trip = Trip(self.redis)
        trip.run(script, names, args)
        return (await trip.go())[0]

    # Sessions

    async def keep_alive(self, session: SessionRecord) -> SessionRecord | None:
        """Write a session's record for the first time or again; None if the session has ended.

        Keep the returned record for the next call. It says when the session was last seen alive.
        """
        return (await self.keep_all_alive([session]))[session.session_id]

    async def keep_all_alive(self, sessions: Sequence[SessionRecord]) -> dict[str, SessionRecord | None]:
        """The same for many sessions in one round trip, by session id."""
        if not sessions:
            return {}
        trip = Trip(self.redis)
        self._add_keep_alives(trip, sessions)
        return _kept(sessions, await trip.go())

    def _add_keep_alives(self, trip: Trip, sessions: Sequence[SessionRecord]) -> None:
        """The answers begin with one for each session."""
        for session in sessions:
            names = [keys.record(session.session_id), keys.ended(session.session_id)]
            seen_ms = "" if session.seen_ms is None else session.seen_ms
            trip.run(_KEEP_ALIVE, names, [session.to_bytes(), keys.RECORD_S, seen_ms, round(keys.ENDED_S * 1000)])
        ids = [session.session_id for session in sessions]
        trip.add(lambda pipe: pipe.sadd(keys.SESSIONS, *ids))  # one that has ended is removed when the list is read
        trip.add(lambda pipe: pipe.expire(keys.SESSIONS, keys.LISTS_S))

    async def session(self, session_id: str) -> SessionRecord | None:
        trip = Trip(self.redis)
        trip.add(lambda pipe: pipe.time())
        trip.add(lambda pipe: pipe.get(keys.record(session_id)))
        (seconds, microseconds), data = await trip.go()
        if data is None:
            return None
        seen_ms = seconds * 1000 + microseconds // 1000
        return SessionRecord.model_validate_json(data).model_copy(update={"seen_ms": seen_ms})

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
        if gone := [session_id for session_id, data in zip(ids, records, strict=True) if data is None]:
            await self.redis.srem(keys.SESSIONS, *gone)
        found = [SessionRecord.model_validate_json(data) for data in records if data is not None]
        return sorted(found, key=lambda record: record.created_at_ms)

    async def end_session(self, session_id: str, reason: EndReason = EndReason.SPEAKER) -> None:
        """Delete a session for good, also while Redis is full: no keep-alive can write its record again."""
        names = [
            keys.record(session_id),
            keys.lease(session_id),
            keys.stats(session_id),
            keys.video(session_id),
            keys.voice(session_id),
            keys.viewer_counts(session_id),
            keys.viewer_lists(session_id),
            keys.viewer_ends(session_id),
            keys.uplink(session_id),
            keys.speaker(session_id),
            keys.suspect(session_id),
            keys.egress_order(session_id),
            keys.egress_state(session_id),
            keys.ended(session_id),
        ]
        trip = Trip(self.redis)
        trip.run(_END, names, [round(keys.ENDED_S * 1000), reason])
        trip.add(lambda pipe: pipe.srem(keys.SESSIONS, session_id))
        await trip.go()

    async def accuse(self, session_ids: Sequence[str]) -> list[str]:
        """A generator's device was lost with these sessions. Returns those with which another one was lost before."""
        trip = Trip(self.redis)
        for name in map(keys.suspect, session_ids):
            trip.add(partial(_count, name=name))
            trip.add(partial(_prolong, name=name, life_s=keys.SUSPECT_S))
        counts = (await trip.go())[::2]
        return [one for one, count in zip(session_ids, counts, strict=True) if count >= _DEVICES_LOST]

    async def was_ended(self, session_id: str) -> bool:
        return bool(await self.redis.exists(keys.ended(session_id)))

    async def stats(self, session_id: str) -> SessionStats | None:
        data = await self.redis.get(keys.stats(session_id))
        return SessionStats.model_validate_json(data) if data else None

    # Generators

    async def heartbeat(
        self,
        status: GeneratorStatus,
        session_ids: Sequence[str] = (),
        stats: Mapping[str, SessionStats] | None = None,
    ) -> dict[str, Renewal]:
        """Keep a generator listed as live, and renew its sessions' leases, slots and statistics.

        The lease is shorter than a few round trips of a slow network, so this takes one, for any number of sessions,
        and a second one only if sessions were lost.
        """
        generator_id, trip = status.generator_id, Trip(self.redis)
        for session_id in session_ids:
            names = [keys.lease(session_id), keys.record(session_id), keys.ended(session_id), keys.stats(session_id)]
            figures = stats[session_id].to_bytes() if stats and session_id in stats else b""
            trip.run(_RENEW, names, [generator_id, LEASE_TTL_MS, figures, keys.STATS_S])
        trip.run(_KEEP_SLOTS, [keys.slots(generator_id)], [RESERVATION_MS, _SLOTS_MS, *session_ids])
        trip.add(lambda pipe: pipe.set(keys.status(generator_id), status.to_bytes(), px=LEASE_TTL_MS))
        trip.add(lambda pipe: pipe.sadd(keys.GENERATORS, generator_id))
        trip.add(lambda pipe: pipe.expire(keys.GENERATORS, keys.LISTS_S))
        trip.add(lambda pipe: pipe.pexpire(keys.control(generator_id), round(keys.CONTROL_S * 1000)))
        answers = await trip.go()
        renewals = {name: Renewal(answer.decode()) for name, answer in zip(session_ids, answers, strict=False)}
        lost = [name for name, renewal in renewals.items() if renewal in {Renewal.TAKEN_OVER, Renewal.ENDED}]
        if lost:
            await self.redis.zrem(keys.slots(generator_id), *lost)
        return renewals

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
        return int(await self._run(_TAKEN, [keys.slots(generator_id)]))

    async def reserve(self, generator_id: str, session_id: str, capacity: int, ttl_ms: int = RESERVATION_MS) -> bool:
        """Take or renew one of a generator's slots for `ttl_ms`, atomically; False if all slots are taken."""
        return bool(await self._run(_RESERVE, [keys.slots(generator_id)], [session_id, capacity, ttl_ms, _SLOTS_MS]))

    async def free_slot(self, generator_id: str, session_id: str) -> None:
        await self.redis.zrem(keys.slots(generator_id), session_id)

    # Leases

    async def hold(self, generator_id: str, session_id: str, ttl_ms: int = LEASE_TTL_MS) -> bool:
        """Take or renew a session's lease; False if another generator holds it."""
        return bool(await self._run(_HOLD, [keys.lease(session_id)], [generator_id, ttl_ms]))

    async def take(self, generator_id: str, session_id: str, capacity: int) -> Renewal:
        """Take a session's slot and lease before it is started: HELD, or the reason why it must not be started.

        What this generator held of a session that it must not start is freed.
        """
        if not await self.reserve(generator_id, session_id, capacity):
            await self._run(_RELEASE, [keys.lease(session_id)], [generator_id])
            return Renewal.FULL
        names = [keys.lease(session_id), keys.record(session_id), keys.ended(session_id)]
        taken = Renewal((await self._run(_TAKE, names, [generator_id, RESERVATION_MS])).decode())
        if taken is not Renewal.HELD:
            await self.free_slot(generator_id, session_id)
        return taken

    async def transfer(self, from_id: str, to_id: str, session_id: str, ttl_ms: int = RESERVATION_MS) -> bool:
        """Transfer a session's lease to another generator; False if `from_id` does not hold it."""
        return bool(await self._run(_TRANSFER, [keys.lease(session_id)], [from_id, to_id, ttl_ms]))

    async def release(self, generator_id: str, session_id: str) -> None:
        """Free the session's slot on this generator, and delete the lease if this generator holds it."""
        await self._run(_RELEASE, [keys.lease(session_id)], [generator_id])
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

    # Uplinks

    async def claim_uplink(self, session_id: str, connection_id: str) -> None:
        """Make a connection the owner of the session's uplink; it replaces every other one, on any gateway."""
        await self.redis.set(keys.uplink(session_id), connection_id, ex=keys.UPLINK_S)

    async def uplink_states(self, session_ids: Sequence[str]) -> dict[str, UplinkState]:
        """The state of each session with an uplink. One round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for session_id in session_ids:
                pipe.mget(keys.lease(session_id), keys.uplink(session_id), keys.ended(session_id))
            answers = await pipe.execute()
        texts = [[value.decode() if value else None for value in answer] for answer in answers]
        return {session_id: UplinkState(*found) for session_id, found in zip(session_ids, texts, strict=True)}

    async def keep_uplinks(self, uplinks: Sequence[OpenUplink], speaker_ttl_s: int) -> dict[str, SessionRecord | None]:
        """Keep the sessions of open uplinks alive, owned by their connections, and with a speaker now.

        An existing claim on a session is prolonged, even if another connection holds it. A missing claim is made again.
        Returns the records by id as keep_alive does. One round trip for any number of uplinks.
        """
        sessions, trip = [uplink.session for uplink in uplinks], Trip(self.redis)
        self._add_keep_alives(trip, sessions)
        for uplink in uplinks:
            name, speaker = keys.uplink(uplink.session.session_id), keys.speaker(uplink.session.session_id)
            trip.add(partial(_claim, name=name, connection_id=uplink.connection_id))
            trip.add(partial(_prolong, name=name, life_s=keys.UPLINK_S))
            trip.run(_SPEAKER_SEEN, [speaker], [speaker_ttl_s])
        return _kept(sessions, await trip.go())

    async def keep_attended(
        self, sessions: Sequence[SessionRecord], speaker_ttl_s: int
    ) -> dict[str, SessionRecord | None]:
        """Keep the sessions of connected participants alive: they count as speakers, with the camera off too.

        Returns the records by id as keep_alive does. One round trip.
        """
        trip = Trip(self.redis)
        if not sessions:
            return {}
        self._add_keep_alives(trip, sessions)
        for session in sessions:
            trip.run(_SPEAKER_SEEN, [keys.speaker(session.session_id)], [speaker_ttl_s])
        return _kept(sessions, await trip.go())

    async def without_speaker_s(self, session_ids: Sequence[str], ttl_s: int) -> dict[str, float]:
        """For how many seconds each session has had no speaker, by Redis' clock. A session without an entry gets one.

        So a session that never had a speaker counts from the first call, and so do all after Redis came back empty.
        One round trip.
        """
        trip = Trip(self.redis)
        for session_id in session_ids:
            trip.run(_WITHOUT_SPEAKER, [keys.speaker(session_id)], [ttl_s])
        return {name: float(idle_s) for name, idle_s in zip(session_ids, await trip.go(), strict=True)}

    async def end_reason(self, session_id: str) -> EndReason | None:
        """Why a session ended lately; None for one that did not, or whose reason is unknown here."""
        return EndReason.of(await self.redis.get(keys.ended(session_id)))


def _kept(sessions: Sequence[SessionRecord], answers: Sequence[int]) -> dict[str, SessionRecord | None]:
    """The records after _KEEP_ALIVE has answered for each: seen now, or None."""
    return {
        session.session_id: session.model_copy(update={"seen_ms": seen_ms}) if seen_ms else None
        for session, seen_ms in zip(sessions, answers, strict=False)
    }


def _claim(pipe: Pipeline, name: str, connection_id: str) -> object:
    return pipe.set(name, connection_id, ex=keys.UPLINK_S, nx=True)


def _prolong(pipe: Pipeline, name: str, life_s: int) -> object:
    return pipe.expire(name, life_s)


def _count(pipe: Pipeline, name: str) -> object:
    return pipe.incr(name)
