"""The routes of the REST API for rooms and their participants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, PARTICIPANT, TOKEN_PROBLEMS, Access, Gate
from mien_gateway.avatar_owners import owner_in, owner_of
from mien_gateway.room_state import Room
from mien_gateway.room_views import (
    AvatarSession,
    CreatedParticipant,
    NewParticipant,
    NewRoom,
    ParticipantPatch,
    ParticipantView,
    RoomList,
    RoomPatch,
    RoomState,
    RoomView,
    visible_participants,
    whep_url,
    whip_url,
)
from mien_gateway.rooms import RoomDesk, participant_not_found
from mien_shared.bus.room_messages import LeaveReason, ParticipantRecord, RoomEnd, RoomRecord
from mien_shared.http.principal import Grant, Principal, Role
from mien_shared.http.problems import Code, describe, redis_problems
from mien_shared.http.turn import ice_servers_for


def _desk(request: Request) -> RoomDesk:
    desk: RoomDesk = request.app.state.room_desk
    return desk


Here = Annotated[RoomDesk, Depends(_desk)]

_PLACEMENT = (Code.AVATAR_NOT_FOUND, Code.AVATAR_STORE_UNAVAILABLE, Code.FULL, Code.NO_GENERATOR)
_ROOM_PROBLEMS = (Code.ROOM_NOT_FOUND, Code.ROOM_BUSY, Code.REDIS_UNAVAILABLE)
_MEMBER = (*ANY_ROUTE, *TOKEN_PROBLEMS, Code.NOT_ADMITTED, Code.PARTICIPANT_NOT_FOUND, *_ROOM_PROBLEMS)

router = APIRouter(prefix="/v1/rooms", tags=["rooms"], dependencies=[COUNTED])


@router.post(
    "",
    status_code=201,
    dependencies=[API_KEY],
    responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.BAD_REQUEST, Code.ROOM_LIMIT, *_ROOM_PROBLEMS),
)
async def create(new: NewRoom, request: Request, response: Response, desk: Here, gate: Gate) -> RoomView:
    """Create a room, or return the room that has this name already, as it is. For operators."""
    by = gate.new_session(request)
    async with redis_problems():
        record = await desk.create(new, by)
    response.headers["Location"] = f"/v1/rooms/{record.room_id}"
    return RoomView.of(record)


@router.get("", dependencies=[API_KEY], responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.REDIS_UNAVAILABLE))
async def read_all(request: Request, desk: Here, gate: Gate) -> RoomList:
    """All rooms, oldest first. For operators."""
    gate.operator(request)
    async with redis_problems():
        return RoomList(rooms=[RoomView.of(record) for record in await desk.listed()])


@router.get("/{room_id}", dependencies=[PARTICIPANT], responses=describe(*_MEMBER))
async def read(room_id: str, request: Request, desk: Here, gate: Gate) -> RoomState:
    """A room and its participants. For operators and for participants of the room; operators see those that wait."""
    async with redis_problems():
        room, own = await _member(gate, request, desk, room_id)
    everything = own is None or own.moderates
    seen = visible_participants(list(room.participants.values()), everything)
    views = [ParticipantView.of(one, desk.settings) for one in seen]
    return RoomState(**RoomView.of(room.record).model_dump(), participants=views)


@router.patch("/{room_id}", dependencies=[PARTICIPANT], responses=describe(*_MEMBER, Code.BAD_REQUEST))
async def patch(room_id: str, changes: RoomPatch, request: Request, desk: Here, gate: Gate) -> RoomView:
    """Lock or unlock a room: a locked room takes no new identity. For operators and moderators."""
    async with redis_problems():
        by, _, _ = await _moderator(gate, request, desk, room_id)
        return RoomView.of(await desk.lock(room_id, changes.locked, by))


@router.delete("/{room_id}", status_code=204, dependencies=[PARTICIPANT], responses=describe(*_MEMBER))
async def delete(room_id: str, request: Request, desk: Here, gate: Gate) -> None:
    """End a room for all participants. For operators and moderators; 404 after it has ended."""
    async with redis_problems():
        by, _, _ = await _moderator(gate, request, desk, room_id)
        await desk.end(room_id, RoomEnd.ENDED, by)


@router.post(
    "/{room_id}/participants",
    status_code=201,
    dependencies=[API_KEY],
    responses=describe(
        *(*ANY_ROUTE, *KEY_PROBLEMS, Code.BAD_REQUEST, Code.ROOM_FULL, Code.ROOM_LOCKED, Code.PARTICIPANT_NOT_FOUND),
        *(*_PLACEMENT, *_ROOM_PROBLEMS),
    ),
)
async def join(
    room_id: str, new: NewParticipant, request: Request, response: Response, desk: Here, gate: Gate
) -> CreatedParticipant:
    """Let a person join a room, and get the token for its device. For operators.

    An identity joins once: a second call gives the same participant another token, name, grants and avatar. The
    participant must connect to `events_url` soon (`MIEN_ROOM_JOIN_S`). With an avatar it gets a session.
    """
    by = gate.new_session(request)
    async with redis_problems():
        joined = await desk.join(room_id, new, by)
    settings, participant_id = desk.settings, joined.participant_id
    token = desk.sessions.tokens.issue(participant_id, joined.grants, room_id=room_id)
    response.headers["Location"] = f"/v1/rooms/{room_id}/participants/{participant_id}"
    session_id = joined.session_id
    return CreatedParticipant(
        participant_id=participant_id,
        token=token,
        room_url=settings.room_url(room_id, token),
        events_url=settings.events_url(room_id),
        state=joined.state,
        session=None
        if session_id is None
        else AvatarSession(
            session_id=session_id,
            uplink_url=settings.uplink_url(session_id),
            whep_url=settings.whep_url(session_id),
        ),
        whip_url=whip_url(joined, room_id, settings),
        whep_url=whep_url(joined, room_id, settings),
        ice_servers=ice_servers_for(settings, participant_id, desk.clock.unix_s()),
    )


@router.get("/{room_id}/participants", dependencies=[PARTICIPANT], responses=describe(*_MEMBER))
async def read_participants(room_id: str, request: Request, desk: Here, gate: Gate) -> list[ParticipantView]:
    """The participants that `GET /v1/rooms/{room_id}` lists."""
    return (await read(room_id, request, desk, gate)).participants


@router.get("/{room_id}/participants/{participant_id}", dependencies=[PARTICIPANT], responses=describe(*_MEMBER))
async def read_participant(
    room_id: str, participant_id: str, request: Request, desk: Here, gate: Gate
) -> ParticipantView:
    """One participant. For operators and for participants of the room; one that waits may read itself."""
    async with redis_problems():
        room, own = await _member(gate, request, desk, room_id, waiting_id=participant_id)
    found = room.participants.get(participant_id)
    everything = own is None or own.moderates or own.participant_id == participant_id
    if found is None or not (everything or found in visible_participants([found], False)):
        raise participant_not_found()
    return ParticipantView.of(found, desk.settings)


@router.patch(
    "/{room_id}/participants/{participant_id}",
    dependencies=[PARTICIPANT],
    responses=describe(*_MEMBER, Code.BAD_REQUEST, *_PLACEMENT),
)
async def patch_participant(
    room_id: str, participant_id: str, changes: ParticipantPatch, request: Request, desk: Here, gate: Gate
) -> ParticipantView:
    """Mute, lower or raise a hand, change the avatar, or let a participant in from the lobby.

    A participant changes itself; `avatar_id` needs the grant publish. Moderators and operators let in, mute and lower
    hands; only the participant itself unmutes and raises its hand. Operators change avatars too.
    """
    async with redis_problems():
        room, own = await _member(gate, request, desk, room_id)
        by = gate.in_room(request, room_id)
        if participant_id not in room.participants:
            raise participant_not_found()
        _demand_changes(gate, by, room.record, own, participant_id, changes)
        if changes.admitted:
            await desk.admit(room_id, participant_id, by)
        if changes.muted is not None or changes.hand is not None:
            await desk.update(room_id, participant_id, muted=changes.muted, hand=changes.hand)
        if "avatar_id" in changes.model_fields_set:
            await desk.set_avatar(room_id, participant_id, changes.avatar_id, by)
        after = await desk.room(room_id)
    if own is None or own.participant_id != participant_id:
        for what, was_done in (("muted", changes.muted), ("hand lowered", changes.hand is False)):
            if was_done:
                audit.participant_changed(by, room_id, participant_id, what)
    if participant_id not in after.participants:
        raise participant_not_found()
    return ParticipantView.of(after.participants[participant_id], desk.settings)


@router.delete(
    "/{room_id}/participants/{participant_id}",
    status_code=204,
    dependencies=[PARTICIPANT],
    responses=describe(*_MEMBER),
)
async def delete_participant(room_id: str, participant_id: str, request: Request, desk: Here, gate: Gate) -> None:
    """Leave a room, or remove a participant from it. For the participant itself, moderators and operators."""
    async with redis_problems():
        room, own = await _member(gate, request, desk, room_id, waiting_id=participant_id)
        by = gate.in_room(request, room_id)
        if own is not None and own.participant_id == participant_id:
            await desk.leave(room_id, participant_id, LeaveReason.LEFT)
            return
        _demand_moderator(gate, by, own)
        if participant_id not in room.participants:
            raise participant_not_found()
        await desk.leave(room_id, participant_id, LeaveReason.REMOVED, by)


async def _member(
    gate: Access, request: Request, desk: RoomDesk, room_id: str, waiting_id: str | None = None
) -> tuple[Room, ParticipantRecord | None]:
    """The room and the caller's participant, None for an operator. Raises Problem.

    waiting_id: the participant that the call is about. One that waits in the lobby may call only about itself.
    """
    by = gate.in_room(request, room_id)
    room = await desk.room(room_id)
    if by.room is None:
        return room, None
    own = room.participants.get(by.scope or "")
    if own is None:
        raise participant_not_found()
    if not own.is_admitted and own.participant_id != waiting_id:
        raise gate.not_admitted()
    return room, own


async def _moderator(
    gate: Access, request: Request, desk: RoomDesk, room_id: str
) -> tuple[Principal, Room, ParticipantRecord | None]:
    by = gate.in_room(request, room_id)
    room, own = await _member(gate, request, desk, room_id)
    _demand_moderator(gate, by, own)
    return by, room, own


def _demand_moderator(gate: Access, by: Principal, own: ParticipantRecord | None) -> None:
    """A participant needs the grant in its token and in the room, because a second join may have taken it away."""
    if own is None and by.role is Role.ANYONE:
        raise gate.not_granted("an open deployment needs a moderator's token for this call")
    if own is not None and not (own.moderates and Grant.MODERATE in by.grants):
        raise gate.not_granted("the token does not grant moderate")


def _demand_changes(
    gate: Access,
    by: Principal,
    room: RoomRecord,
    own: ParticipantRecord | None,
    participant_id: str,
    changes: ParticipantPatch,
) -> None:
    is_self = own is not None and own.participant_id == participant_id
    if not is_self or changes.admitted:
        _demand_moderator(gate, by, own)
    if not is_self and (changes.muted is False or changes.hand is True):
        raise gate.not_granted("only the participant itself unmutes and raises its hand")
    if "avatar_id" in changes.model_fields_set and own is not None:
        if not is_self:
            raise gate.not_granted("only the participant itself and operators change its avatar")
        if not {Grant.PUBLISH} <= own.grants & by.grants:
            raise gate.not_granted("the token does not grant publish")
        owner = owner_in(changes.avatar_id or "")
        if owner is not None and owner != owner_of(room, own):
            raise gate.not_granted("this picture belongs to another participant")
