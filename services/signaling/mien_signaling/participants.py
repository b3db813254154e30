"""Lets participants do in their room, and in its sessions, what their tokens grant."""

from __future__ import annotations

from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.room_messages import ParticipantRecord
from mien_shared.bus.rooms import Rooms
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem


async def demand_participant(
    rooms: Rooms, session: SessionRecord, bearer: Principal | None, grant: Grant
) -> ParticipantRecord | None:
    """Raises Problem unless a participant's token grants this in the session's room, and it is in that room.

    Returns its record. Other callers pass, with None: their tokens name the session, and were checked.
    """
    if bearer is None or bearer.room is None:
        return None
    bearer.demand_session(session, [grant])
    return admitted(await rooms.participant(bearer.room, bearer.scope or ""))


def demand_room(room_id: str, bearer: Principal | None, grant: Grant) -> Principal:
    """The participant that a request to a room's URL comes from. Raises Problem 403."""
    if bearer is None or bearer.room is None:
        raise Problem(Code.TOKEN_NOT_GRANTED, "only the token of a participant opens a room")
    if bearer.room != room_id:
        raise Problem(Code.TOKEN_NOT_GRANTED, "the token is for another room")
    if grant not in bearer.grants:
        raise Problem(Code.TOKEN_NOT_GRANTED, f"the token does not grant {grant}")
    return bearer


def admitted(participant: ParticipantRecord | None) -> ParticipantRecord:
    """Raises Problem unless there is such a participant, and it does not wait in the lobby."""
    if participant is None:
        raise Problem(Code.PARTICIPANT_NOT_FOUND, "there is no such participant, or it has left the room")
    if not participant.is_admitted:
        raise Problem(Code.NOT_ADMITTED, "a moderator has not let this participant in yet")
    return participant
