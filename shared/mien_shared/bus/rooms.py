"""Rooms on Redis: their records, participants, owners of connections, and the log of their events.

A change is decided elsewhere, from a whole `Snapshot`, and committed only if the room's version is still that of the
snapshot. So two gateways cannot both take the last place. An event has the next sequence number of its room: Redis'
time in milliseconds, or one more than the last. So numbers also rise after Redis came back empty.

Gateways keep rooms alive and fill an empty Redis again, for each participant that is connected to them. Ended means
ended, by the marks of decision 15: one for a room, and one for each participant that has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from mien_shared.bus import keys, room_scripts
from mien_shared.bus.room_messages import LoggedEvent, ParticipantRecord, Presence, RoomEvent, RoomRecord
from mien_shared.bus.trip import Argument, Trip

_ENDED_MS = round(keys.ENDED_S * 1000)


class Kept(StrEnum):
    """What a gateway learns when it keeps a participant alive."""

    KEPT = "kept"
    RESTORED = "restored"  # it was missing, and is written again
    REPLACED = "replaced"  # another connection owns the participant
    GONE = "gone"  # the participant has left
    ENDED = "ended"  # the room has ended


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A room at one moment, in Unix milliseconds by Redis' clock. record: None if there is no such room."""

    now_ms: int
    record: RoomRecord | None
    participants: dict[str, ParticipantRecord]
    presence: dict[str, Presence]
    sequence: int
    version: str
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A change of a room. life_s: how long its keys live. connected: the new owner's connection by participant."""

    life_s: int
    record: RoomRecord | None
    put: Sequence[ParticipantRecord]
    gone: Sequence[str]
    events: Sequence[RoomEvent]
    connected: Mapping[str, str]
    end: str | None


@dataclass(frozen=True, slots=True)
class Connected:
    """A participant that is connected to a gateway. seen_ms: when Redis was last known to hold it."""

    room: RoomRecord
    participant: ParticipantRecord
    connection_id: str
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Newest:
    """How far a room has got. sequence: of its newest event, None without one. live_version: empty without one."""

    sequence: int | None
    live_version: bytes


@dataclass(frozen=True, slots=True)
class RoomMarks:
    """Whether a room has changed. The versions are empty where Redis has none."""

    version: bytes
    live_version: bytes
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Keeping:
    """What became of a connected participant. now: its state as Redis has it, None after an end."""

    kept: Kept
    now: Connected | None = None


class Rooms:
    """Reads and writes rooms. Every method raises the errors of Redis (BUS_ERRORS)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, room_id: str) -> Snapshot:
        return (await self.read_all([room_id]))[room_id]

    async def read_all(self, room_ids: Iterable[str]) -> dict[str, Snapshot]:
        """Many rooms in one round trip."""
        ids, trip = list(room_ids), Trip(self._redis)
        for room_id in ids:
            trip.run(room_scripts.READ, _of_read(room_id), [])
        return {room_id: _snapshot(answer) for room_id, answer in zip(ids, await trip.go(), strict=True)}

    async def commit(self, room_id: str, version: str, change: Commit) -> int | None:
        """Write a change; returns the sequence number of its last event (0 without one).

        None if the room has changed since it was read with this version, or has ended.
        """
        args: list[Argument] = [version, change.life_s, _ENDED_MS]
        args += [b"" if change.record is None else change.record.to_bytes(), change.end or ""]
        args += [len(change.gone), *change.gone, len(change.put)]
        for one in change.put:
            args += [one.participant_id, one.to_bytes()]
        args += [len(change.connected), *(text for pair in change.connected.items() for text in pair)]
        args += [len(change.events), *(event.to_bytes() for event in change.events)]
        trip = Trip(self._redis)
        trip.run(room_scripts.COMMIT, _of_commit(room_id), args)
        if change.end is None:
            _add_listing(trip, [room_id])
        else:
            trip.add(lambda pipe: pipe.srem(keys.ROOMS, room_id))
        answer = (await trip.go())[0]
        return None if answer is None else int(answer or 0)

    async def say(self, room: RoomRecord, event: RoomEvent) -> int | None:
        """Add an event to a room's log; returns its sequence number, None if there is no such room."""
        room_id, trip = room.room_id, Trip(self._redis)
        names = [keys.room(room_id), keys.room_events(room_id), keys.room_sequence(room_id)]
        trip.run(room_scripts.SAY, names, [event.to_bytes(), room.life_s])
        answer = (await trip.go())[0]
        return None if answer is None else int(answer)

    async def newest(self, room_ids: Sequence[str]) -> dict[str, Newest]:
        """How far each room has got. One command."""
        kinds = (keys.room_sequence, keys.room_live_version)
        found = await self._redis.mget([kind(room_id) for room_id in room_ids for kind in kinds]) if room_ids else []
        return {
            room_id: Newest(int(sequence) if sequence else None, live_version or b"")
            for room_id, sequence, live_version in zip(room_ids, found[::2], found[1::2], strict=True)
        }

    async def events_after(
        self, positions: Mapping[str, int], most: int = room_scripts.LOG_CAP
    ) -> dict[str, list[LoggedEvent]]:
        """The events of each room after a sequence number, oldest first, at most so many. One round trip."""
        trip = Trip(self._redis)
        for room_id, sequence in positions.items():
            trip.add(partial(_read_log, name=keys.room_events(room_id), after=sequence, most=most))
        answers = await trip.go()
        return {
            room_id: [_logged(*entry) for entry in found] for room_id, found in zip(positions, answers, strict=True)
        }

    async def keep(self, connected: Sequence[Connected]) -> list[Keeping]:
        """Keep participants and their rooms alive, and write again what Redis has lost. One round trip."""
        trip = Trip(self._redis)
        for one in connected:
            room, participant = one.room, one.participant
            trip.run(
                room_scripts.KEEP,
                _of_keep(room.room_id),
                [
                    *(room.to_bytes(), participant.participant_id, participant.to_bytes(), one.connection_id),
                    *(one.seen_ms, room.life_s, _ENDED_MS),
                ],
            )
        for room in {one.room.room_id: one.room for one in connected}.values():
            if room.name is not None:
                trip.run(room_scripts.CLAIM_NAME, [keys.room_name(room.name)], [room.room_id, room.life_s, ""])
        _add_listing(trip, {one.room.room_id for one in connected})
        answers = await trip.go()
        return [_keeping(one, answer) for one, answer in zip(connected, answers, strict=False)]

    async def disconnect(self, room_id: str, participant_id: str, connection_id: str) -> None:
        trip = Trip(self._redis)
        trip.run(room_scripts.DISCONNECT, [keys.room_presence(room_id)], [participant_id, connection_id])
        await trip.go()

    async def listed(self) -> list[str]:
        """The ids of all rooms, also of some that have ended lately."""
        return sorted(name.decode() for name in await self._redis.smembers(keys.ROOMS))

    async def list_again(self, room_ids: Sequence[str], ended: Sequence[str]) -> None:
        """Keep rooms in the list, and remove those that have ended."""
        trip = Trip(self._redis)
        _add_listing(trip, room_ids)
        if ended:
            trip.add(lambda pipe: pipe.srem(keys.ROOMS, *ended))
        await trip.go()

    async def claim_name(self, room: RoomRecord, instead_of: str = "") -> str:
        """Take the room's name; returns the id of the room that has it. instead_of: a room that has ended."""
        assert room.name is not None
        trip = Trip(self._redis)
        trip.run(room_scripts.CLAIM_NAME, [keys.room_name(room.name)], [room.room_id, room.life_s, instead_of])
        return bytes((await trip.go())[0]).decode()

    async def named(self, name: str) -> str | None:
        """The id of the room that has this name."""
        found = await self._redis.get(keys.room_name(name))
        return found.decode() if found else None

    async def free_name(self, room: RoomRecord) -> None:
        if room.name is not None:
            trip = Trip(self._redis)
            trip.run(room_scripts.FREE_NAME, [keys.room_name(room.name)], [room.room_id])
            await trip.go()

    async def has_left(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Of each (room, participant): whether its mark, or its room's, says that it has left. One round trip."""
        trip = Trip(self._redis)
        for room_id, participant_id in pairs:
            trip.add(partial(_score, name=keys.room_gone(room_id), member=participant_id))
            trip.add(partial(_exists, name=keys.room_ended(room_id)))
        answers = await trip.go()
        return [gone is not None or bool(ended) for gone, ended in zip(answers[::2], answers[1::2], strict=True)]

    async def participants(self, pairs: Sequence[tuple[str, str]]) -> list[ParticipantRecord | None]:
        """The record of each (room, participant), None for one that is not there. One round trip, none for no pairs."""
        if not pairs:
            return []
        trip = Trip(self._redis)
        for room_id, participant_id in pairs:
            trip.add(partial(_field, name=keys.room_participants(room_id), member=participant_id))
        return [ParticipantRecord.model_validate_json(data) if data else None for data in await trip.go()]

    async def marks(self, room_ids: Sequence[str]) -> dict[str, RoomMarks]:
        """Whether each room has changed. One command."""
        kinds = (keys.room_version, keys.room_live_version, keys.room_ended)
        found = await self._redis.mget([kind(room_id) for room_id in room_ids for kind in kinds]) if room_ids else []
        marks = zip(found[::3], found[1::3], found[2::3], strict=True)
        return {
            room_id: RoomMarks(version or b"", live_version or b"", bool(ended))
            for room_id, (version, live_version, ended) in zip(room_ids, marks, strict=True)
        }

    async def people(self, room_ids: Sequence[str]) -> dict[str, dict[str, ParticipantRecord]]:
        """The participants of each room, by id. One round trip, none for no rooms."""
        trip = Trip(self._redis)
        for room_id in room_ids:
            trip.add(partial(_all_fields, name=keys.room_participants(room_id)))
        return {
            room_id: {name.decode(): ParticipantRecord.model_validate_json(data) for name, data in found.items()}
            for room_id, found in zip(room_ids, await trip.go(), strict=True)
        }

    async def participant(self, room_id: str, participant_id: str) -> ParticipantRecord | None:
        data = await self._redis.hget(keys.room_participants(room_id), participant_id)
        return ParticipantRecord.model_validate_json(data) if data else None


def _of_read(room_id: str) -> list[str]:
    kinds = (keys.room, keys.room_participants, keys.room_presence, keys.room_sequence, keys.room_version)
    return [*(kind(room_id) for kind in kinds), keys.room_ended(room_id)]


def _of_commit(room_id: str) -> list[str]:
    kinds = (keys.room, keys.room_participants, keys.room_presence, keys.room_gone, keys.room_events)
    return [*(kind(room_id) for kind in (*kinds, keys.room_sequence, keys.room_version, keys.room_ended))]


def _of_keep(room_id: str) -> list[str]:
    kinds = (keys.room, keys.room_participants, keys.room_presence, keys.room_gone, keys.room_sequence)
    return [*(kind(room_id) for kind in (*kinds, keys.room_version, keys.room_ended))]


def _add_listing(trip: Trip, room_ids: Iterable[str]) -> None:
    if ids := list(room_ids):
        trip.add(lambda pipe: pipe.sadd(keys.ROOMS, *ids))
        trip.add(lambda pipe: pipe.expire(keys.ROOMS, keys.LISTS_S))


def _read_log(pipe: Pipeline, name: str, after: int, most: int) -> object:
    return pipe.xrange(name, min=f"{after + 1}-0", count=most)


def _field(pipe: Pipeline, name: str, member: str) -> object:
    return pipe.hget(name, member)


def _all_fields(pipe: Redis | Pipeline, name: str) -> Any:
    return pipe.hgetall(name)


def _score(pipe: Pipeline, name: str, member: str) -> object:
    return pipe.zscore(name, member)


def _exists(pipe: Pipeline, name: str) -> object:
    return pipe.exists(name)


def _logged(entry_id: bytes, fields: Mapping[bytes, bytes]) -> LoggedEvent:
    event = RoomEvent.model_validate_json(fields[b"e"])
    return LoggedEvent(sequence=int(entry_id.partition(b"-")[0]), previous=int(fields[b"p"]), event=event)


def _snapshot(answer: Sequence[Any]) -> Snapshot:
    now_ms, record, participants, presence, sequence, version, ended = answer
    return Snapshot(
        now_ms=int(now_ms),
        record=RoomRecord.model_validate_json(record) if record else None,
        participants={
            name.decode(): ParticipantRecord.model_validate_json(data) for name, data in _pairs(participants)
        },
        presence={name.decode(): Presence.parse(data) for name, data in _pairs(presence)},
        sequence=int(sequence or 0),
        version=(version or b"").decode(),
        end_reason=ended.decode() if ended else None,
    )


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _keeping(one: Connected, answer: Sequence[bytes]) -> Keeping:
    kept = Kept(answer[0].decode())
    if len(answer) == 1:
        return Keeping(kept)
    _, now_ms, room, participant = answer
    now = Connected(
        RoomRecord.model_validate_json(room),
        ParticipantRecord.model_validate_json(participant),
        one.connection_id,
        int(now_ms),
    )
    return Keeping(kept, now)
