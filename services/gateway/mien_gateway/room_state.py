"""What may happen in a room. Pure: each function takes a room and returns a change, or raises why there is none.

A room:          open --end--> ended. An open room may be locked, and then takes no new identity.
A participant:   --join--> WAITING (room with a lobby, and it may not moderate) --admit--> INVITED or ACTIVE
                 --join--> INVITED --connect--> ACTIVE
                 every state --leave--> gone. An id that is gone never comes back; its identity may join again.

A participant is WAITING or INVITED until its first connection to the room's events. One that waits may connect too,
and is ACTIVE as soon as it is admitted. A connection that breaks changes no state: `overdue` decides when it was gone
for too long. An identity that joins again keeps its participant: its name, grants and avatar become the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mien_shared.bus.room_messages import (
    Audience,
    EventType,
    LeaveReason,
    ParticipantRecord,
    ParticipantState,
    Presence,
    RoomEnd,
    RoomEvent,
    RoomRecord,
)
from mien_shared.http.principal import Grant


class RoomLocked(Exception):
    """The room takes no new identity."""


class RoomFull(Exception):
    """The room has as many participants as allowed."""


class NoSuchParticipant(Exception):
    """The room has no participant with this id, or it has left."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room at one moment. now_ms: that moment, by Redis' clock. version: changes with every change of the records."""

    record: RoomRecord
    participants: Mapping[str, ParticipantRecord]
    presence: Mapping[str, Presence]
    now_ms: int
    version: str = ""
    sequence: int = 0

    def participant(self, participant_id: str) -> ParticipantRecord:
        """Raises NoSuchParticipant."""
        try:
            return self.participants[participant_id]
        except KeyError:
            raise NoSuchParticipant(participant_id) from None

    def of_identity(self, identity: str) -> ParticipantRecord | None:
        return next((one for one in self.participants.values() if one.identity == identity), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What is written at once. connected: the participants whose owner becomes this connection (id by participant)."""

    record: RoomRecord | None = None
    put: tuple[ParticipantRecord, ...] = ()
    gone: tuple[ParticipantRecord, ...] = ()
    events: tuple[RoomEvent, ...] = ()
    connected: Mapping[str, str] = field(default_factory=dict)
    end: RoomEnd | None = None

    def __bool__(self) -> bool:
        return bool(self.record or self.put or self.gone or self.events or self.end)


@dataclass(frozen=True, slots=True)
class Joining:
    """Who wants to join. participant_id: the one it gets if its identity is new.

    session_id: the session that was made for this avatar, None if it has none yet or none is needed.
    """

    participant_id: str
    identity: str
    name: str
    grants: frozenset[Grant]
    avatar_id: str | None = None
    session_id: str | None = None


def join(room: Room, new: Joining) -> Change:
    """An operator lets an identity join. Raises RoomLocked or RoomFull for a new identity."""
    if (known := room.of_identity(new.identity)) is not None:
        again = known.model_copy(update={"name": new.name, "grants": new.grants})
        gets_session = new.session_id is not None and known.session_id is None
        if new.participant_id == known.participant_id and (new.avatar_id != known.avatar_id or gets_session):
            again = again.model_copy(update={"avatar_id": new.avatar_id, "session_id": new.session_id})
        if not known.is_admitted and Grant.MODERATE in new.grants:
            return _admitted(room, again)
        return _put(known, again)
    if room.record.locked:
        raise RoomLocked
    if len(room.participants) >= room.record.max_participants:
        raise RoomFull
    waits = room.record.lobby and Grant.MODERATE not in new.grants
    joined = ParticipantRecord(
        participant_id=new.participant_id,
        identity=new.identity,
        name=new.name,
        grants=new.grants,
        state=ParticipantState.WAITING if waits else ParticipantState.INVITED,
        joined_at_ms=room.now_ms,
        avatar_id=new.avatar_id,
        session_id=new.session_id,
    )
    return Change(_with_empty_since(room, None), put=(joined,))


def connect(room: Room, participant_id: str, connection_id: str) -> Change:
    """A connection to the room's events becomes the owner of its participant. Raises NoSuchParticipant."""
    known = room.participant(participant_id)
    owner = RoomEvent(
        type=EventType.CONNECTED, to=Audience.GATEWAYS, participant_id=participant_id, connection_id=connection_id
    )
    connected = {participant_id: connection_id}
    if known.state is ParticipantState.INVITED:
        active = known.model_copy(update={"state": ParticipantState.ACTIVE})
        return Change(put=(active,), events=(owner, _joined(active)), connected=connected)
    if known.state is ParticipantState.WAITING and participant_id not in room.presence:
        knock = RoomEvent(type=EventType.PARTICIPANT_WAITING, to=Audience.MODERATORS, participant=known)
        return Change(events=(owner, knock), connected=connected)
    return Change(events=(owner,), connected=connected)


def admit(room: Room, participant_id: str, session_id: str | None = None) -> Change:
    """A moderator lets a participant out of the lobby. Raises NoSuchParticipant; changes nothing a second time.

    session_id: the session that was made for its avatar.
    """
    known = room.participant(participant_id)
    if known.is_admitted:
        return Change()
    return _admitted(room, known.model_copy(update={"session_id": session_id}))


def update(room: Room, participant_id: str, *, muted: bool | None = None, hand: bool | None = None) -> Change:
    """Set what is not None. Raises NoSuchParticipant; changes nothing if all is as asked."""
    known = room.participant(participant_id)
    asked = {"muted": known.muted if muted is None else muted, "hand": known.hand if hand is None else hand}
    return _put(known, known.model_copy(update=asked))


def set_avatar(room: Room, participant_id: str, avatar_id: str | None, session_id: str | None) -> Change:
    """Give a participant another avatar and its session, or none. Raises NoSuchParticipant."""
    known = room.participant(participant_id)
    return _put(known, known.model_copy(update={"avatar_id": avatar_id, "session_id": session_id}))


def leave(room: Room, participant_id: str, reason: LeaveReason) -> Change:
    """A participant leaves for good. Raises NoSuchParticipant."""
    known = room.participant(participant_id)
    last = len(room.participants) == 1
    record = _with_empty_since(room, room.now_ms) if last else None
    if known.state is ParticipantState.INVITED:  # no client has seen it
        return Change(record, gone=(known,))
    to = Audience.ROOM if known.is_admitted else Audience.MODERATORS
    left = RoomEvent(type=EventType.PARTICIPANT_LEFT, to=to, participant_id=participant_id, reason=reason)
    return Change(record, gone=(known,), events=(left,))


def lock(room: Room, locked: bool) -> Change:
    """Lock or unlock the room; changes nothing if it is as asked."""
    if room.record.locked == locked:
        return Change()
    record = room.record.model_copy(update={"locked": locked})
    return Change(record, events=(RoomEvent(type=EventType.ROOM_UPDATED, room=record),))


def end(room: Room, reason: RoomEnd) -> Change:
    """End the room for all."""
    bye = RoomEvent(type=EventType.BYE, to=Audience.EVERYONE, reason=reason)
    return Change(gone=tuple(room.participants.values()), events=(bye,), end=reason)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """In seconds. join_s: for the first connection. departure_s: without a connection. max_room_s: 0: no limit."""

    join_s: int
    departure_s: int
    max_room_s: int


def overdue(room: Room, limits: RoomLimits) -> RoomEnd | tuple[tuple[str, LeaveReason], ...]:
    """Why the room must end, or which participants have left because of a limit (their ids, and the limit)."""
    age_s = (room.now_ms - room.record.created_at_ms) / 1000
    if 0 < limits.max_room_s < age_s:
        return RoomEnd.DURATION
    empty_ms = room.record.empty_since_ms
    if not room.participants and empty_ms is not None and room.now_ms - empty_ms > 1000 * room.record.empty_timeout_s:
        return RoomEnd.EMPTY
    found = ((one.participant_id, _limit_of(room, one, limits)) for one in room.participants.values())
    return tuple((participant_id, reason) for participant_id, reason in found if reason is not None)


def _limit_of(room: Room, one: ParticipantRecord, limits: RoomLimits) -> LeaveReason | None:
    presence = room.presence.get(one.participant_id)
    if presence is None:
        late = room.now_ms - one.joined_at_ms > 1000 * limits.join_s
        return LeaveReason.NOT_CONNECTED if late else None
    return LeaveReason.AWAY if room.now_ms - presence.seen_ms > 1000 * limits.departure_s else None


def sees(viewer: ParticipantRecord, event: RoomEvent) -> bool:
    """Whether a participant receives an event."""
    match event.to:
        case Audience.GATEWAYS:
            return False
        case Audience.EVERYONE:
            return True
        case Audience.MODERATORS:
            return viewer.moderates
        case Audience.ROOM:
            return viewer.is_admitted


def _put(known: ParticipantRecord, new: ParticipantRecord) -> Change:
    return Change() if new == known else Change(put=(new,), events=_updated(new))


def _joined(one: ParticipantRecord) -> RoomEvent:
    return RoomEvent(type=EventType.PARTICIPANT_JOINED, participant=one)


def _admitted(room: Room, known: ParticipantRecord) -> Change:
    has_connected = known.participant_id in room.presence
    state = ParticipantState.ACTIVE if has_connected else ParticipantState.INVITED
    # It joins now: its connection may not ask for events from before.
    admitted = known.model_copy(update={"state": state, "joined_at_ms": room.now_ms})
    return Change(put=(admitted,), events=(_joined(admitted),) if has_connected else ())


def _updated(one: ParticipantRecord) -> tuple[RoomEvent, ...]:
    """No event for a participant that nobody has seen yet."""
    if one.state is ParticipantState.INVITED:
        return ()
    to = Audience.ROOM if one.is_admitted else Audience.MODERATORS
    return (RoomEvent(type=EventType.PARTICIPANT_UPDATED, to=to, participant=one),)


def _with_empty_since(room: Room, since_ms: int | None) -> RoomRecord:
    return room.record.model_copy(update={"empty_since_ms": since_ms})
