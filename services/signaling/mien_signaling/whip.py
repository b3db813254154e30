"""WHIP over HTTP (RFC 9725): speakers. What it has in common with WHEP is in sdp_http.py."""

from __future__ import annotations

from fastapi import APIRouter

from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem
from mien_shared.spans import span
from mien_signaling.peer_session import ClosedWhileAnswering, PeerSession
from mien_signaling.sdp_http import Doorkeeper, SdpEndpoint, routes_of
from mien_signaling.settings import SignalingSettings
from mien_signaling.speaker import SpeakerConnection
from mien_signaling.speaker_offer import parse_speaker_offer
from mien_signaling.speakers import Speakers

PREFIX = "/v1/whip/"


class Whip(SdpEndpoint):
    """The handlers of WHIP. A speaker needs its token in open demos too, as over the WebSocket."""

    def __init__(self, speakers: Speakers, settings: SignalingSettings, clock: Clock) -> None:
        super().__init__(PREFIX, settings, clock, Doorkeeper(settings, clock, Grant.PUBLISH, is_open=False))
        self._speakers = speakers

    async def _join(self, session_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        assert bearer is not None  # the doorkeeper demands a token
        checked = parse_speaker_offer(offer)
        self._checked(session_id)
        try:
            with span("answer a speaker's offer"):
                return await self._speakers.join(session_id, checked, bearer)
        except ClosedWhileAnswering as error:
            raise Problem(Code.SPEAKER_CLOSED, "the connection was closed while its offer was answered") from error

    def _find(self, session_id: str, connection_id: str, bearer: Principal | None) -> PeerSession:
        speaker = self._speakers.find(session_id, connection_id)
        if speaker is None:
            if why := self._speakers.why_ended(session_id, connection_id):
                raise Problem(Code.UPLINK_ENDED, why)
            raise Problem(Code.SPEAKER_NOT_FOUND, "there is no such uplink, or its speaker has left")
        if bearer is not None:
            bearer.demand_session(speaker.session, [Grant.PUBLISH])
        return speaker

    async def _leave(self, connection: PeerSession) -> None:
        assert isinstance(connection, SpeakerConnection)
        await self._speakers.leave(connection)


def routes(speakers: Speakers, settings: SignalingSettings, clock: Clock) -> APIRouter:
    """The routes of WHIP."""
    finding = (Code.SPEAKER_NOT_FOUND, Code.UPLINK_ENDED)
    return routes_of(Whip(speakers, settings, clock), "WHIP", Grant.PUBLISH, (Code.SPEAKER_CLOSED,), finding)
