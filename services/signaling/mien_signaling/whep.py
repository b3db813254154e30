"""WHEP over HTTP (draft-ietf-wish-whep): viewers. What it has in common with WHIP is in sdp_http.py."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem
from mien_shared.spans import span
from mien_signaling.audience import Audience
from mien_signaling.offer import parse_offer
from mien_signaling.participants import demand_room
from mien_signaling.peer import ViewerConnection
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.room_audience import RoomAudience
from mien_signaling.room_offer import parse_room_offer
from mien_signaling.room_viewer import RoomViewer
from mien_signaling.sdp_http import (
    SDP,
    Doorkeeper,
    RoomEndpoint,
    SdpEndpoint,
    joining_problems,
    room_routes_of,
    routes_of,
)
from mien_signaling.settings import SignalingSettings

PREFIX = "/v1/whep/"
ROOM_PREFIX = PREFIX + "rooms/"


class Whep(SdpEndpoint):
    """The handlers of WHEP."""

    def __init__(self, audience: Audience, settings: SignalingSettings, clock: Clock) -> None:
        doorkeeper = Doorkeeper(settings, clock, Grant.WATCH, is_open=settings.demo_open)
        super().__init__(PREFIX, settings, clock, doorkeeper)
        self._audience = audience

    async def _join(self, session_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        checked = parse_offer(offer)
        self._checked(session_id)
        with span("answer an offer"):
            return await self._audience.join(session_id, checked, bearer)

    def _find(self, session_id: str, connection_id: str, bearer: Principal | None) -> PeerSession:
        viewer = self._audience.find(session_id, connection_id)
        if viewer is None:
            if self._audience.was_ended(session_id, connection_id):
                raise Problem(Code.VIEWER_ENDED, "an operator has ended this viewer's connection")
            raise Problem(Code.VIEWER_NOT_FOUND, "there is no such viewer, or it has left")
        if bearer is not None:
            bearer.demand_session(viewer.broadcast.session, [Grant.WATCH])
        return viewer

    async def _leave(self, connection: PeerSession) -> None:
        assert isinstance(connection, ViewerConnection)
        await self._audience.remove(connection, Gone.LEFT)


class RoomWhep(RoomEndpoint):
    """The handlers of a room's URL: a participant sees and hears everyone over one connection."""

    def __init__(self, rooms: RoomAudience, settings: SignalingSettings, clock: Clock) -> None:
        super().__init__(ROOM_PREFIX, settings, clock, Doorkeeper(settings, clock, Grant.WATCH, is_open=False))
        self._rooms = rooms
        self._max_slots = settings.max_room_slots

    async def _join(self, room_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        bearer = demand_room(room_id, bearer, Grant.WATCH)
        checked = parse_room_offer(offer, self._max_slots)
        self._checked(room_id)
        with span("answer an offer to a room"):
            return await self._rooms.join(room_id, checked, bearer)

    async def more(self, room_id: str, connection_id: str, request: Request) -> Response:
        """Answer a new offer on a connection, which has more slots than the last one."""
        bearer = self._doorkeeper.admit(request, room_id)
        viewer = self._find(room_id, connection_id, bearer)
        body = await self._doorkeeper.text(request, SDP, "Accept-Post")
        with joining_problems():
            offer = parse_room_offer(body, self._max_slots)
            self._checked(room_id)
            answer = await self._rooms.more(room_id, viewer, offer)
        return Response(answer, media_type=SDP)

    def _find(self, room_id: str, connection_id: str, bearer: Principal | None) -> RoomViewer:
        bearer = demand_room(room_id, bearer, Grant.WATCH)
        viewer = self._rooms.find(room_id, connection_id)
        if viewer is None:
            match self._rooms.why_ended(room_id, connection_id):
                case Gone.OPERATOR:
                    raise Problem(Code.VIEWER_ENDED, "an operator has ended this viewer's connection")
                case Gone.REPLACED:
                    raise Problem(Code.VIEWER_REPLACED, "a newer connection of this participant has replaced this one")
            raise Problem(Code.VIEWER_NOT_FOUND, "there is no such viewer, or it has left")
        if viewer.participant_id != bearer.scope:
            raise Problem(Code.TOKEN_NOT_GRANTED, "the token is for another participant")
        return viewer

    async def _leave(self, connection: PeerSession) -> None:
        assert isinstance(connection, RoomViewer)
        await self._rooms.leave(connection)


def routes(audience: Audience, rooms: RoomAudience, settings: SignalingSettings, clock: Clock) -> APIRouter:
    """The routes of WHEP. Those of rooms come first: "rooms" is no session."""
    joining, finding = (Code.VIEWER_CLOSED,), (Code.VIEWER_NOT_FOUND, Code.VIEWER_ENDED)
    of_rooms = RoomWhep(rooms, settings, clock)
    finding_in_room = (*finding, Code.VIEWER_REPLACED)
    router = room_routes_of(of_rooms, "WHEP", Grant.WATCH, joining, finding_in_room, of_rooms.more)
    of_sessions = Whep(audience, settings, clock)
    router.include_router(routes_of(of_sessions, "WHEP", Grant.WATCH, (*joining, Code.NO_PUBLICATION), finding))
    return router
