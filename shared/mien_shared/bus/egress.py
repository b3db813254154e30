"""Which sessions are published to an SFU, by which signaling service, and where the SFU keeps them.

An operator orders the egress of a session through a gateway. Every signaling service with an SFU asks once a second
which sessions are ordered; one of them claims each. A claim expires after five seconds, so that another service takes
over from one that was killed. The Location that the SFU gave to a publication is here too: the next owner deletes
it at the SFU first, because some SFUs refuse a second publication beside a first one that is dead.

A Redis that comes back empty is filled again by the services that hold claims.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from mien_shared.bus import keys
from mien_shared.bus.trip import Argument, Script, Trip

#: How often a signaling service asks for orders and renews its claims.
INTERVAL_S = 1.0
_CLAIM_MS = round(keys.EGRESS_OWNER_S * 1000)

# Renews a claim unless the session has ended or another service holds it. Writes the state, and again what an empty
# Redis has lost: the order and the Location. Returns a Renewal and the order.
# KEYS: owner, ended, order, state, index, resources. ARGV: service, claim in ms, order or nothing, life of an order in
# s, state, its life in s, session, Location or nothing, life of the Locations in s.
_RENEW = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'lost', ''} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'ended', ''} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[4], ARGV[5], 'EX', ARGV[6])
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[6], ARGV[7], ARGV[8])
  redis.call('EXPIRE', KEYS[6], ARGV[9])
end
local order = redis.call('GET', KEYS[3])
if not order and ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4])
  redis.call('SADD', KEYS[5], ARGV[7])
  order = ARGV[3]
end
redis.call('EXPIRE', KEYS[3], ARGV[4])
redis.call('EXPIRE', KEYS[5], ARGV[4])
return {'held', order or ''}
""")

# Deletes a claim and the state if this service holds the claim. KEYS: owner, state. ARGV: service.
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
return redis.call('DEL', KEYS[1])
""")

# Forgets a Location unless another one has replaced it. KEYS: resources. ARGV: session, Location.
_FORGET = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class EgressOrder(_Message):
    """What an operator wants for a session.

    wanted: False keeps a session from the SFU where all others are published. stream_key: replaces {stream_key} in the
    SFU's URL and bearer; a secret.
    """

    wanted: bool
    stream_key: str | None = None


class EgressError(StrEnum):
    """Why the newest attempt to publish a session failed, or why its connection ended."""

    UNREACHABLE = "unreachable"  # no answer over HTTP
    REFUSED = "refused"  # an answer other than 201
    BAD_ANSWER = "bad-answer"  # 201, but not one that we can use
    NOT_CONNECTED = "not-connected"  # ICE or DTLS did not complete in time
    SILENT = "silent"  # no receiver report while video is sent
    CLOSED = "closed"  # the connection ended
    NO_KEY = "no-key"  # the SFU's URL or bearer names something that this session does not have


class EgressState(_Message):
    """What the signaling service that publishes a session knows of it."""

    state: Literal["connecting", "connected", "retrying"]
    since_ms: int = Field(description="Unix time at which this state began")
    failures: int = Field(0, description="Failed attempts since it was last connected for half a minute")
    error: EgressError | None = Field(None, description="Why the newest attempt or connection ended")
    status: int | None = Field(None, description="The SFU's HTTP status, if it refused the newest attempt")
    loss_ratio: float | None = Field(None, description="Share of packets lost, 0 to 1, in the SFU's newest report")
    rtt_ms: float | None = Field(None, description="Round-trip time to the SFU by its newest report")


class Renewal(StrEnum):
    """What a signaling service learns when it renews a claim."""

    HELD = "held"
    LOST = "lost"  # another service holds it
    ENDED = "ended"  # the session


@dataclass(frozen=True, slots=True)
class Held:
    """A claim of this service. order: None where all sessions are published. resource: the Location at the SFU."""

    order: EgressOrder | None
    state: EgressState
    resource: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to do.

    ordered: sessions whose egress an operator has ordered. listed: all sessions, where all are published. resources:
    Locations at the SFU, by session.
    """

    ordered: frozenset[str]
    listed: frozenset[str]
    resources: dict[str, str]

    @property
    def session_ids(self) -> list[str]:
        """Every session that has to be looked at."""
        return sorted({*self.ordered, *self.listed, *self.resources})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that may have to be published."""

    session_id: str
    order: EgressOrder | None
    is_claimed: bool
    has_ended: bool
    is_recorded: bool

    def is_free(self, *, wants_all: bool) -> bool:
        """Whether a service should claim it. wants_all: sessions without an order are published too."""
        wanted = wants_all if self.order is None else self.order.wanted
        return wanted and self.is_recorded and not self.is_claimed and not self.has_ended


class Egresses:
    """Reads and writes all this. Every method raises the errors of Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    # Gateways

    async def order(self, session_id: str, order: EgressOrder) -> None:
        """Replace the order of a session."""
        trip = Trip(self._redis)
        trip.add(lambda pipe: pipe.set(keys.egress_order(session_id), order.to_bytes(), ex=keys.EGRESS_ORDER_S))
        if order.wanted:
            trip.add(lambda pipe: pipe.sadd(keys.EGRESSES, session_id))
            trip.add(lambda pipe: pipe.expire(keys.EGRESSES, keys.EGRESS_ORDER_S))
        else:
            trip.add(lambda pipe: pipe.srem(keys.EGRESSES, session_id))
        await trip.go()

    async def of_session(self, session_id: str) -> tuple[EgressOrder | None, EgressState | None]:
        """The order for a session and the state of its publication. None: there is none."""
        order, state = await self._redis.mget(keys.egress_order(session_id), keys.egress_state(session_id))
        return _order(order), _state(state)

    async def has_sfu(self) -> bool:
        """Whether a signaling service of this deployment has an SFU."""
        return bool(await self._redis.exists(keys.EGRESS_READY))

    # Signaling

    async def survey(self, *, wants_all: bool) -> Survey:
        """Say that this service has an SFU, and read what there is to do."""
        trip = Trip(self._redis)
        trip.add(lambda pipe: pipe.set(keys.EGRESS_READY, "1", ex=keys.EGRESS_READY_S))
        trip.add(lambda pipe: pipe.hgetall(keys.EGRESS_RESOURCES))
        trip.add(lambda pipe: pipe.smembers(keys.EGRESSES))
        if wants_all:
            trip.add(lambda pipe: pipe.smembers(keys.SESSIONS))
        _, resources, *members = await trip.go()
        ordered, listed = (frozenset(name.decode() for name in group) for group in [*members, []][:2])
        return Survey(ordered, listed, {name.decode(): url.decode() for name, url in resources.items()})

    async def look(self, session_ids: Sequence[str], ordered: Container[str] = ()) -> list[Candidate]:
        """The sessions with their orders and claims. Of those listed as ordered, the ids that are not are removed."""
        if not session_ids:
            return []
        trip = Trip(self._redis)
        for session_id in session_ids:
            names = (keys.egress_order, keys.egress_owner, keys.ended, keys.record)
            trip.add(partial(_mget, names=[name(session_id) for name in names]))
            # An order lives as long as its session, as far as a service sees to it.
            trip.add(partial(_prolong, name=keys.egress_order(session_id)))
        answers = (await trip.go())[::2]
        found = [
            Candidate(session_id, _order(order), owner is not None, ended is not None, record is not None)
            for session_id, (order, owner, ended, record) in zip(session_ids, answers, strict=True)
        ]
        gone = (one.session_id for one in found if one.has_ended or one.order is None)
        if stale := [session_id for session_id in gone if session_id in ordered]:
            await self._redis.srem(keys.EGRESSES, *stale)
        return found

    async def claim(self, session_id: str, service_id: str) -> bool:
        """Take a session that no service publishes; False if another one was faster."""
        taken = await self._redis.set(keys.egress_owner(session_id), service_id, px=_CLAIM_MS, nx=True)
        if taken:  # the state was that of the last owner
            await self._redis.delete(keys.egress_state(session_id))
        return bool(taken)

    async def renew(self, service_id: str, held: Mapping[str, Held]) -> dict[str, tuple[Renewal, EgressOrder | None]]:
        """Renew claims; a claim that has expired is taken again. Returns each one's renewal and its newest order."""
        trip = Trip(self._redis)
        for session_id, one in held.items():
            names = [
                *(keys.egress_owner(session_id), keys.ended(session_id), keys.egress_order(session_id)),
                *(keys.egress_state(session_id), keys.EGRESSES, keys.EGRESS_RESOURCES),
            ]
            order = b"" if one.order is None else one.order.to_bytes()
            args: list[Argument] = [
                *(service_id, _CLAIM_MS, order, keys.EGRESS_ORDER_S, one.state.to_bytes(), keys.EGRESS_STATE_S),
                *(session_id, one.resource or "", keys.ENDED_S),
            ]
            trip.run(_RENEW, names, args)
        answers = await trip.go()
        return {
            session_id: (Renewal(renewal.decode()), _order(order or None))
            for session_id, (renewal, order) in zip(held, answers, strict=True)
        }

    async def release(self, session_id: str, service_id: str) -> None:
        """Give up a claim, so that another service takes the session at once."""
        trip = Trip(self._redis)
        trip.run(_RELEASE, [keys.egress_owner(session_id), keys.egress_state(session_id)], [service_id])
        await trip.go()

    async def keep_resource(self, session_id: str, url: str) -> None:
        """Remember where the SFU keeps a publication."""
        trip = Trip(self._redis)
        trip.add(lambda pipe: pipe.hset(keys.EGRESS_RESOURCES, session_id, url))
        trip.add(lambda pipe: pipe.expire(keys.EGRESS_RESOURCES, keys.ENDED_S))
        await trip.go()

    async def resource(self, session_id: str) -> str | None:
        """Where the SFU keeps the session's last publication, None if it was deleted."""
        url = await self._redis.hget(keys.EGRESS_RESOURCES, session_id)
        return None if url is None else url.decode()

    async def forget_resource(self, session_id: str, url: str) -> None:
        """Note that a publication was deleted at the SFU; does nothing if another one has replaced it."""
        trip = Trip(self._redis)
        trip.run(_FORGET, [keys.EGRESS_RESOURCES], [session_id, url])
        await trip.go()


def orphans(survey: Survey, found: Iterable[Candidate], *, wants_all: bool) -> list[str]:
    """Sessions whose Location is still known although no service publishes them, and none will. Pure."""
    by_id = {one.session_id: one for one in found}
    return [
        session_id
        for session_id in survey.resources
        if (one := by_id.get(session_id)) is not None and not one.is_claimed and not one.is_free(wants_all=wants_all)
    ]


def _mget(pipe: Pipeline, names: list[str]) -> object:
    return pipe.mget(names)


def _prolong(pipe: Pipeline, name: str) -> object:
    return pipe.expire(name, keys.EGRESS_ORDER_S)


def _order(data: bytes | None) -> EgressOrder | None:
    """None also for what a service of another version wrote and this one cannot read."""
    try:
        return EgressOrder.model_validate_json(data) if data else None
    except ValidationError:
        return None


def _state(data: bytes | None) -> EgressState | None:
    try:
        return EgressState.model_validate_json(data) if data else None
    except ValidationError:
        return None
