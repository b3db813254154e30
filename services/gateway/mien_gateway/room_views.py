"""Rooms, participants and events as clients send and see them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mien_gateway.settings import GatewaySettings
from mien_shared.bus.room_messages import LoggedEvent, ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.http.principal import Grant
from mien_shared.http.turn import ice_servers_for
from mien_shared.settings import IceServer

RoomGrant = Literal["publish", "watch", "moderate"]
_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_TEXT = r"^[^\x00-\x1f\x7f]+$"


class _Request(BaseModel):
    """The body of a request: `1` is no boolean, and `"1"` no number."""

    model_config = ConfigDict(strict=True)


class NewRoom(_Request):
    """A request for a room. Each field has a default."""

    name: str | None = Field(None, pattern=_NAME, description="A room that has this name already is returned as it is")
    max_participants: int | None = Field(None, ge=1, le=200)
    empty_timeout_s: int | None = Field(
        None, ge=10, le=3600, description="The room ends after this time without anyone"
    )
    lobby: bool = Field(False, description="Participants wait until a moderator lets them in")
    metadata: str = Field("", max_length=1000, description="Your own text; every participant reads it")


class RoomView(BaseModel):
    """A room."""

    room_id: str
    name: str | None
    created_at_ms: int
    max_participants: int
    empty_timeout_s: int
    lobby: bool
    locked: bool
    metadata: str

    @classmethod
    def of(cls, record: RoomRecord) -> RoomView:
        return cls.model_validate(record.model_dump())


class ParticipantView(BaseModel):
    """A participant. session_id and whep_url: where its avatar can be watched, None for a listener."""

    participant_id: str
    identity: str
    name: str
    state: ParticipantState
    grants: list[Grant]
    muted: bool
    hand: bool
    avatar_id: str | None
    session_id: str | None
    whep_url: str | None
    joined_at_ms: int

    @classmethod
    def of(cls, record: ParticipantRecord, settings: GatewaySettings) -> ParticipantView:
        whep_url = None if record.session_id is None else settings.whep_url(record.session_id)
        return cls.model_validate(record.model_dump() | {"grants": sorted(record.grants), "whep_url": whep_url})


class RoomState(RoomView):
    """A room with its participants, the one that joined first comes first."""

    participants: list[ParticipantView]


class RoomList(BaseModel):
    rooms: list[RoomView]


class RoomPatch(_Request):
    locked: bool


class NewParticipant(_Request):
    """Who may join. `identity` is your name for the person; it joins once."""

    identity: str = Field(min_length=1, max_length=128, pattern=_TEXT)
    name: str = Field("", max_length=128)
    avatar_id: str | None = Field(None, max_length=64, description="None: a listener")
    grants: list[RoomGrant] = Field(["publish", "watch"], max_length=3)


class AvatarSession(BaseModel):
    """The session of a participant's avatar."""

    session_id: str
    uplink_url: str
    whep_url: str


class CreatedParticipant(BaseModel):
    """`token` is the participant's: for the room's events, its own uplink, and every avatar of the room.

    session: None for a listener, and while the participant waits in the lobby. whip_url: takes its voice and motion,
    None without avatar. whep_url: sends it everyone's picture and voice, None without the grant watch.
    """

    participant_id: str
    token: str
    room_url: str
    events_url: str
    state: ParticipantState
    session: AvatarSession | None
    whip_url: str | None
    whep_url: str | None
    ice_servers: list[IceServer]


class ParticipantPatch(_Request):
    """What changes. A field that is left out stays; `avatar_id: null` makes a listener."""

    muted: bool | None = None
    hand: bool | None = None
    avatar_id: str | None = Field(None, max_length=64)
    admitted: bool | None = Field(None, description="true lets a participant in that waits in the lobby")


class _ClientMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SendReaction(_ClientMessage):
    type: Literal["reaction"]
    reaction: str = Field(min_length=1, max_length=32)


class SendMessage(_ClientMessage):
    type: Literal["message"]
    text: str = Field(min_length=1, max_length=2000)


class SetHand(_ClientMessage):
    type: Literal["hand"]
    raised: bool


class SetMuted(_ClientMessage):
    type: Literal["mute"]
    muted: bool


class Leave(_ClientMessage):
    type: Literal["leave"]


ClientMessage = Annotated[SendReaction | SendMessage | SetHand | SetMuted | Leave, Field(discriminator="type")]
CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)


def event_view(logged: LoggedEvent, settings: GatewaySettings) -> dict[str, object]:
    """An event of the log as clients read it."""
    event = logged.event
    view: dict[str, object] = {"type": event.type, "sequence": logged.sequence}
    if event.participant is not None:
        view["participant"] = ParticipantView.of(event.participant, settings).model_dump(mode="json")
    if event.room is not None:
        view["room"] = RoomView.of(event.room).model_dump()
    fields = ("participant_id", "reason", "text", "reaction")
    return view | {name: value for name in fields if (value := getattr(event, name)) is not None}


def whip_url(one: ParticipantRecord, room_id: str, settings: GatewaySettings) -> str | None:
    """Where a participant sends its voice and motion, None without avatar."""
    publishes = one.avatar_id is not None and Grant.PUBLISH in one.grants
    return settings.room_whip_url(room_id) if publishes else None


def whep_url(one: ParticipantRecord, room_id: str, settings: GatewaySettings) -> str | None:
    """Where a participant watches and hears its room, None without the grant."""
    return settings.room_whep_url(room_id) if Grant.WATCH in one.grants else None


def own_connection(
    own: ParticipantRecord, room_id: str, settings: GatewaySettings, now_unix_s: float
) -> dict[str, object]:
    """The URLs and ICE servers of one participant, for the participant itself."""
    servers = ice_servers_for(settings, own.participant_id, now_unix_s)
    return {
        "whip_url": whip_url(own, room_id, settings),
        "whep_url": whep_url(own, room_id, settings),
        "uplink_url": None if own.session_id is None else settings.uplink_url(own.session_id),
        "ice_servers": [server.model_dump(mode="json") for server in servers],
    }


def visible_participants(participants: list[ParticipantRecord], moderates: bool) -> list[ParticipantRecord]:
    """Those that a participant sees, in the order of joining. Moderators see those in the lobby too."""
    states = {ParticipantState.ACTIVE, ParticipantState.WAITING} if moderates else {ParticipantState.ACTIVE}
    return sorted(
        (one for one in participants if one.state in states), key=lambda one: (one.joined_at_ms, one.identity)
    )
