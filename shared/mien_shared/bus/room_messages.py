"""A room, its participants and its events as they are in Redis. JSON, one class for each."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from mien_shared.http.principal import Grant


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class RoomRecord(_Message):
    """A room. Times are in Unix milliseconds by Redis' clock.

    owner: the name of the principal that created it. empty_since_ms: since when it has no participant, None while it
    has one. life_s: how long its keys live after their last write.
    """

    room_id: str
    name: str | None = None
    owner: str
    created_at_ms: int
    max_participants: int
    empty_timeout_s: int
    lobby: bool = False
    locked: bool = False
    metadata: str = ""
    empty_since_ms: int | None = None
    life_s: int


class ParticipantState(StrEnum):
    """Where a participant is. `mien_gateway/room_state.py` has the transitions."""

    WAITING = "waiting"  # in the lobby
    INVITED = "invited"  # may enter, and has not connected yet
    ACTIVE = "active"  # in the room


class ParticipantRecord(_Message):
    """A participant. session_id: the session of its avatar, None for a listener."""

    participant_id: str
    identity: str
    name: str
    grants: frozenset[Grant]
    state: ParticipantState
    joined_at_ms: int
    muted: bool = False
    hand: bool = False
    avatar_id: str | None = None
    session_id: str | None = None

    @property
    def is_admitted(self) -> bool:
        return self.state is not ParticipantState.WAITING

    @property
    def moderates(self) -> bool:
        return self.is_admitted and Grant.MODERATE in self.grants


class LeaveReason(StrEnum):
    """Why a participant has left."""

    LEFT = "left"  # by its own will
    REMOVED = "removed"  # by a moderator or an operator
    AWAY = "away"  # its connection was gone for too long
    NOT_CONNECTED = "not-connected"  # it never connected
    ROOM_ENDED = "room-ended"


class RoomEnd(StrEnum):
    """Why a room has ended."""

    ENDED = "ended"  # by a moderator or an operator
    EMPTY = "empty"  # it had no participant for too long
    DURATION = "duration"  # it reached the longest duration that the deployment allows


class EventType(StrEnum):
    """The events of a room's log. `room`, `waiting`, `resumed` and `error` are made for one client and not stored."""

    PARTICIPANT_WAITING = "participant_waiting"
    PARTICIPANT_JOINED = "participant_joined"
    PARTICIPANT_UPDATED = "participant_updated"
    PARTICIPANT_LEFT = "participant_left"
    ROOM_UPDATED = "room_updated"
    REACTION = "reaction"
    MESSAGE = "message"
    BYE = "bye"  # the room has ended
    CONNECTED = "connected"  # for gateways: a connection has become the owner of a participant


class Audience(StrEnum):
    """Who sees an event."""

    ROOM = "room"  # all participants that are admitted
    MODERATORS = "moderators"
    EVERYONE = "everyone"  # those in the lobby too
    GATEWAYS = "gateways"  # no client


class RoomEvent(_Message):
    """One event. Which fields it has depends on its type."""

    type: EventType
    to: Audience = Audience.ROOM
    participant: ParticipantRecord | None = None
    participant_id: str | None = None
    room: RoomRecord | None = None
    reason: str | None = None
    text: str | None = None
    reaction: str | None = None
    connection_id: str | None = None


class LoggedEvent(_Message):
    """An event of the log. previous: the sequence number of the event before it, 0 for the first of the log."""

    sequence: int
    previous: int
    event: RoomEvent


class Presence(_Message):
    """The connection that owns a participant, empty if it has closed, and when it was last known to be open."""

    connection_id: str
    seen_ms: int = Field(ge=0)

    @classmethod
    def parse(cls, data: bytes) -> Presence:
        seen_ms, _, connection_id = data.decode().partition(" ")
        return cls(connection_id=connection_id, seen_ms=int(seen_ms))
