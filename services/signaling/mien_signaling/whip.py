"""WHIP over HTTP (RFC 9725): speakers. What it has in common with WHEP is in sdp_http.py."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.rooms import Rooms
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem
from mien_shared.spans import span
from mien_signaling.participants import admitted, demand_room
from mien_signaling.peer_session import ClosedWhileAnswering, PeerSession
from mien_signaling.sdp_http import Doorkeeper, RoomEndpoint, SdpEndpoint, room_routes_of, routes_of
from mien_signaling.settings import SignalingSettings
from mien_signaling.speaker import SpeakerConnection
from mien_signaling.speaker_offer import SpeakerOffer, parse_speaker_offer
from mien_signaling.speakers import Speakers

PREFIX = "/v1/whip/"
ROOM_PREFIX = PREFIX + "rooms/"


class Whip(SdpEndpoint):
    """The handlers of WHIP. A speaker needs its token in open demos too, as over the WebSocket."""

    def __init__(self, speakers: Speakers, settings: SignalingSettings, clock: Clock) -> None:
        super().__init__(PREFIX, settings, clock, Doorkeeper(settings, clock, Grant.PUBLISH, is_open=False))
        self._speakers = speakers

    async def _join(self, session_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        assert bearer is not None  # the doorkeeper demands a token
        checked = parse_speaker_offer(offer)
        self._checked(session_id)
        return await _joined(self._speakers, session_id, checked, bearer)

    def _find(self, session_id: str, connection_id: str, bearer: Principal | None) -> PeerSession:
        speaker = self._speakers.find(connection_id)
        if speaker is None or speaker.session.session_id != session_id:
            raise _not_found(self._speakers, connection_id, lambda session: session.session_id == session_id)
        if bearer is not None:
            bearer.demand_session(speaker.session, [Grant.PUBLISH])
        return speaker

    async def _leave(self, connection: PeerSession) -> None:
        assert isinstance(connection, SpeakerConnection)
        await self._speakers.leave(connection)


class RoomWhip(RoomEndpoint):
    """The handlers of a room's URL: a participant speaks in its own session without knowing which one that is."""

    def __init__(self, speakers: Speakers, rooms: Rooms, settings: SignalingSettings, clock: Clock) -> None:
        super().__init__(ROOM_PREFIX, settings, clock, Doorkeeper(settings, clock, Grant.PUBLISH, is_open=False))
        self._speakers = speakers
        self._rooms = rooms

    async def _join(self, room_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        bearer = demand_room(room_id, bearer, Grant.PUBLISH)
        checked = parse_speaker_offer(offer)
        self._checked(room_id)
        participant = admitted(await self._rooms.participant(room_id, bearer.scope or ""))
        if participant.session_id is None:
            raise Problem(Code.NO_AVATAR, "the participant has no avatar")
        return await _joined(self._speakers, participant.session_id, checked, bearer)

    def _find(self, room_id: str, connection_id: str, bearer: Principal | None) -> PeerSession:
        bearer = demand_room(room_id, bearer, Grant.PUBLISH)
        speaker = self._speakers.find(connection_id)
        if speaker is None or speaker.session.room_id != room_id:
            raise _not_found(self._speakers, connection_id, lambda session: session.room_id == room_id)
        bearer.demand_session(speaker.session, [Grant.PUBLISH])
        return speaker

    async def _leave(self, connection: PeerSession) -> None:
        assert isinstance(connection, SpeakerConnection)
        await self._speakers.leave(connection)


async def _joined(speakers: Speakers, session_id: str, offer: SpeakerOffer, bearer: Principal) -> tuple[str, str]:
    try:
        with span("answer a speaker's offer"):
            return await speakers.join(session_id, offer, bearer)
    except ClosedWhileAnswering as error:
        raise Problem(Code.SPEAKER_CLOSED, "the connection was closed while its offer was answered") from error


def _not_found(speakers: Speakers, connection_id: str, is_of: Callable[[SessionRecord], bool]) -> Problem:
    ended = speakers.ended(connection_id)
    if ended is not None and is_of(ended[0]):
        return Problem(Code.UPLINK_ENDED, ended[1])
    return Problem(Code.SPEAKER_NOT_FOUND, "there is no such uplink, or its speaker has left")


def routes(speakers: Speakers, rooms: Rooms, settings: SignalingSettings, clock: Clock) -> APIRouter:
    """The routes of WHIP. Those of rooms come first: "rooms" is no session."""
    joining, finding = (Code.SPEAKER_CLOSED,), (Code.SPEAKER_NOT_FOUND, Code.UPLINK_ENDED)
    of_rooms = RoomWhip(speakers, rooms, settings, clock)
    router = room_routes_of(of_rooms, "WHIP", Grant.PUBLISH, (*joining, Code.NO_AVATAR), finding)
    router.include_router(routes_of(Whip(speakers, settings, clock), "WHIP", Grant.PUBLISH, joining, finding))
    return router
