"""WHEP over HTTP (draft-ietf-wish-whep): viewers. What it has in common with WHIP is in sdp_http.py."""

from __future__ import annotations

from fastapi import APIRouter

from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem
from mien_shared.spans import span
from mien_signaling.audience import Audience
from mien_signaling.offer import parse_offer
from mien_signaling.peer import ViewerConnection
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.sdp_http import Doorkeeper, SdpEndpoint, routes_of
from mien_signaling.settings import SignalingSettings

PREFIX = "/v1/whep/"


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


def routes(audience: Audience, settings: SignalingSettings, clock: Clock) -> APIRouter:
    """The routes of WHEP."""
    joining = (Code.NO_PUBLICATION, Code.VIEWER_CLOSED)
    finding = (Code.VIEWER_NOT_FOUND, Code.VIEWER_ENDED)
    return routes_of(Whep(audience, settings, clock), "WHEP", Grant.WATCH, joining, finding)
