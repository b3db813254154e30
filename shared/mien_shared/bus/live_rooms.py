"""The live state of rooms on Redis: who speaks, and who is in which slot of whose connection.

Signaling services write it, gateways read it and tell the clients. It is a state and not a log: the newest write wins,
and what is not written again expires by itself (ENTRY_TTL_MS), so nothing stays of a service that was killed. Services
write all of theirs again every five seconds, and at once when Redis has lost it.

A participant's entry also says which of its connections is the newest, on all signaling services together. A service
that renews an entry and is refused has a connection that another one has replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from mien_shared.bus import keys
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_shared.bus.trip import Script, Trip

logger = logging.getLogger(__name__)

#: How long an entry is valid after it was written.
ENTRY_TTL_MS = round(2.5 * KEEP_ALIVE_INTERVAL_S * 1000)
_LIFE_MS = round(keys.ROOM_LIVE_S * 1000)
_SPEAKERS = "speakers"
_SLOTS = "slots "  # and the participant's id


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ActiveSpeaker(_State):
    """A participant that is heard now. level: its loudness, 0 (hardly heard) to 1 (full scale)."""

    participant_id: str
    level: float


class SlotState(_State):
    """One slot of a viewer's connection. audio_mid: None for a slot without voice. participant_id: None if empty."""

    slot: int
    video_mid: str
    audio_mid: str | None
    participant_id: str | None


class SlotsState(_State):
    """The slots of a participant's newest WHEP connection. viewer_id: the last part of its Location."""

    viewer_id: str
    slots: tuple[SlotState, ...]


@dataclass(frozen=True, slots=True)
class LiveRoom:
    """The live state of one room. slots: by the participant whose connection has them."""

    speakers: tuple[ActiveSpeaker, ...] = ()
    slots: Mapping[str, SlotsState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveChange:
    """What a signaling service writes of one room.

    speakers: None if they are not written. claimed: of connections that become their participants' newest. kept: of
    connections that are, unless another one has replaced them. dropped: participant and viewer_id of connections that
    have ended.
    """

    speakers: Sequence[ActiveSpeaker] | None = None
    claimed: Mapping[str, SlotsState] = field(default_factory=dict)
    kept: Mapping[str, SlotsState] = field(default_factory=dict)
    dropped: Sequence[tuple[str, str]] = ()

    def __bool__(self) -> bool:
        return self.speakers is not None or bool(self.claimed or self.kept or self.dropped)


_SPEAKER_LIST: TypeAdapter[tuple[ActiveSpeaker, ...]] = TypeAdapter(tuple[ActiveSpeaker, ...])

# Writes entries of a room that has not ended. An entry is "UNTIL OWNER JSON": until when it is valid (Unix ms), whose
# it is, and its content. The version changes if the content of an entry does. Returns it, and the fields of the kept
# entries that another owner has. Entries that are no longer valid are deleted before anything is written, because a
# full Redis refuses a write, but not in a script that has deleted something.
# KEYS: live, its version, ended. ARGV: validity and life in ms, and for each entry: what is done, field, owner, JSON.
_WRITE = Script("""
if redis.call('EXISTS', KEYS[3]) == 1 then return {''} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owners, bodies, changed, answer = {}, {}, false, {''}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local until_ms, owner, body = string.match(all[i + 1], '^(%d+) (%S+) (.*)$')
  if tonumber(until_ms) <= now then
    redis.call('HDEL', KEYS[1], all[i])
    changed = true
  else
    owners[all[i]], bodies[all[i]] = owner, body
  end
end
for i = 3, #ARGV, 4 do
  local what, field, owner, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what ~= 'claim' and owners[field] and owners[field] ~= owner then
    if what == 'keep' then answer[#answer + 1] = field end
  elseif what == 'drop' then
    if redis.call('HDEL', KEYS[1], field) == 1 then changed = true end
    owners[field], bodies[field] = nil, nil
  else
    redis.call('HSET', KEYS[1], field, string.format('%.0f', now + ARGV[1]) .. ' ' .. owner .. ' ' .. body)
    if owners[field] ~= owner or bodies[field] ~= body then changed = true end
    owners[field], bodies[field] = owner, body
  end
end
local version = redis.call('GET', KEYS[2])
if changed or not version then version = string.format('%.0f', math.max(now, (tonumber(version) or 0) + 1)) end
redis.call('SET', KEYS[2], version, 'PX', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
answer[1] = version
return answer
""")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write: the live state's version now, and the participants whose kept entries were refused."""

    version: bytes
    refused: frozenset[str]


class LiveRooms:
    """Reads and writes live states. Every method takes one round trip and raises the errors of Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def write(self, changes: Mapping[str, LiveChange], ttl_ms: int = ENTRY_TTL_MS) -> dict[str, Written]:
        """Write what has changed, by room; a room without a change is left out of the answer.

        ttl_ms: how long the entries are valid.
        """
        rooms, trip = [room_id for room_id, change in changes.items() if change], Trip(self._redis)
        for room_id in rooms:
            names = [keys.room_live(room_id), keys.room_live_version(room_id), keys.room_ended(room_id)]
            trip.run(_WRITE, names, [ttl_ms, _LIFE_MS, *_entries(changes[room_id])])
        answers = await trip.go()
        return {
            room_id: Written(version, frozenset(name.decode().removeprefix(_SLOTS) for name in refused))
            for room_id, (version, *refused) in zip(rooms, answers, strict=True)
        }

    async def read(self, room_ids: Sequence[str]) -> dict[str, LiveRoom]:
        """The live state of each room."""
        trip = Trip(self._redis)
        for room_id in room_ids:
            trip.add(partial(_read_all, name=keys.room_live(room_id)))
        return {room_id: _parsed(found) for room_id, found in zip(room_ids, await trip.go(), strict=True)}


def _read_all(pipe: Redis | Pipeline, name: str) -> object:
    return pipe.hgetall(name)


def _entries(change: LiveChange) -> list[str | bytes]:
    flat: list[str | bytes] = []
    if change.speakers is not None:
        flat += ["claim", _SPEAKERS, "-", _SPEAKER_LIST.dump_json(tuple(change.speakers))]
    for what, entries in (("claim", change.claimed), ("keep", change.kept)):
        for participant_id, state in entries.items():
            flat += [what, _SLOTS + participant_id, state.viewer_id, state.model_dump_json()]
    for participant_id, viewer_id in change.dropped:
        flat += ["drop", _SLOTS + participant_id, viewer_id, ""]
    return flat


def _parsed(found: Mapping[bytes, bytes]) -> LiveRoom:
    """The state of a room; an entry that cannot be read is left out, because another version may have written it."""
    speakers: tuple[ActiveSpeaker, ...] = ()
    slots = {}
    for name, value in found.items():
        body = value.split(b" ", 2)[-1]
        try:
            if name == _SPEAKERS.encode():
                speakers = _SPEAKER_LIST.validate_json(body)
            else:
                slots[name.decode().removeprefix(_SLOTS)] = SlotsState.model_validate_json(body)
        except ValidationError as error:
            logger.warning("unreadable live state of a room ignored", extra={"errors": error.error_count()})
    return LiveRoom(speakers, slots)
