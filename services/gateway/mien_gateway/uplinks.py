"""Uplinks: one WebSocket per speaker, from handshake to close. `packet_filter.py` decides which packets are accepted.

A sender sends its token as `Authorization: Bearer`. A browser, which cannot set headers, sends it as a subprotocol:
`Sec-WebSocket-Protocol: mien.v1, bearer.TOKEN`; the gateway selects `mien.v1`. The gateway refuses a connection before
the handshake by an HTTP status with a problem document (401, 403, 404, 429, 503). It closes an open one with a code:

1008 most of the packets were refused · 1009 a message was too long · 1012 the gateway is shutting down ·
4401 the token has expired · 4409 another uplink of the session has replaced this one, on this gateway or on another ·
4410 the session has ended; the reason says why.
A sender may reconnect after 1009 and 1012, but not after the other codes. A client that does not read what it is owed
is cut off without a code (`read_ahead.py`); that is counted as 4408.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from mien_gateway.access import Access
from mien_gateway.metrics import GatewayMetrics
from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.messages import EndReason, SessionRecord
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, OpenUplink, Registry, UplinkState
from mien_shared.bus.uplink import MotionUplink
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant
from mien_shared.http.problems import Code, Problem, redis_problems
from mien_shared.http.tokens import bearer_token
from mien_shared.wire.motion import MAX_PACKET_BYTES, choose_subprotocol
from mien_shared.wire.packet_filter import PacketFilter, PacketVerdict

_BEARER_SUBPROTOCOL = "bearer."

#: The longest message that the socket accepts. Up to here, a packet that is too long is counted as `length`.
MAX_MESSAGE_BYTES = 4 * MAX_PACKET_BYTES
#: How soon an uplink learns that its session has moved or ended, or that another uplink has replaced it.
OWNER_REFRESH_INTERVAL_S = 0.25
_CLOSE_TIMEOUT_S = 2.0
_TAKEN = {PacketVerdict.ACCEPTED, PacketVerdict.NO_OWNER}

# WebSocket close codes (RFC 6455, section 7.4). Codes from 4000 are Mien's.
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
TOKEN_EXPIRED = 4401
REPLACED = 4409
SESSION_ENDED = 4410


@dataclass(eq=False, slots=True)
class Uplink:
    """One open uplink.

    connection_id: what the registry knows this connection by. expires_unix_s: when its token expires. motion: judges
    and forwards its packets. close_code: set when the gateway decides to close it; its packets are ignored
    afterwards.
    """

    session: SessionRecord
    connection_id: str
    expires_unix_s: float
    motion: MotionUplink
    socket: WebSocket
    close_code: int | None = field(default=None)


class Uplinks:
    """All uplinks of this gateway. A session has at most one, on all gateways together: the newest."""

    def __init__(
        self,
        registry: Registry,
        forwarder: MotionForwarder,
        access: Access,
        metrics: GatewayMetrics,
        clock: Clock,
        speaker_ttl_s: int,
    ) -> None:
        """speaker_ttl_s: how long the registry keeps the time at which a session last had an uplink."""
        self._registry = registry
        self._forwarder = forwarder
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._speaker_ttl_s = speaker_ttl_s
        self._open: dict[str, Uplink] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, socket: WebSocket, session_id: str) -> None:
        """Serve one connection until it closes, or refuse it by an HTTP status before the handshake."""
        try:
            uplink = await self._admit(socket, session_id)
        except Problem as problem:
            await socket.send_denial_response(problem.response())
            return
        await socket.accept(choose_subprotocol(socket.scope["subprotocols"]))
        if older := self._open.get(session_id):
            self._close(older, REPLACED, "replaced by another uplink of this session")
        self._open[session_id] = uplink
        self._metrics.uplink_opened()
        code = 1006
        try:
            code = await self._take_packets(uplink)
        finally:
            self._metrics.uplink_closed(uplink.close_code or code)
            if self._open.get(session_id) is uplink:
                del self._open[session_id]

    async def _admit(self, socket: WebSocket, session_id: str) -> Uplink:
        """Make this connection the session's uplink; raises Problem."""
        self._access.request(socket)
        token = bearer_token(socket.headers.get("authorization"))
        for offered in socket.scope["subprotocols"]:
            if offered.startswith(_BEARER_SUBPROTOCOL):
                token = token or offered.removeprefix(_BEARER_SUBPROTOCOL)
        principal = self._access.speaker(session_id, token)
        connection_id = secrets.token_hex(8)
        async with redis_problems():
            session = await self._registry.session(session_id)
            if session is None:
                raise Problem(Code.SESSION_NOT_FOUND, await self._why_not(session_id))
            self._access.session(principal, session, [Grant.PUBLISH])
            await self._registry.claim_uplink(session_id, connection_id)
            states = await self._registry.uplink_states([session_id])
        expires_unix_s = principal.expires_unix_s
        assert expires_unix_s is not None  # a token's bearer, not an operator
        motion = MotionUplink(session_id, states[session_id].owner, PacketFilter(self._clock.monotonic_s()))
        return Uplink(session, connection_id, expires_unix_s, motion, socket)

    async def _why_not(self, session_id: str) -> str:
        reason = await self._registry.end_reason(session_id)
        return "there is no session with this id" if reason is None else EndReason.sentence(reason)

    async def _take_packets(self, uplink: Uplink) -> int:
        """Handle packets until the peer closes; returns the peer's close code."""
        while True:
            message = await uplink.socket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            if uplink.close_code is not None:
                continue  # wait until the peer answers the close
            data: bytes | None = message.get("bytes")
            if len(data or message.get("text") or "") > MAX_MESSAGE_BYTES:  # the server's limit is that of all routes
                self._close(uplink, MESSAGE_TOO_BIG, "the message is too long")
                continue
            now_s, unix_s = self._clock.monotonic_s(), self._clock.unix_s()
            verdict = uplink.motion.take(data, now_s, unix_s, self._forwarder)
            if verdict not in _TAKEN and uplink.motion.filter.abusive:
                self._close(uplink, POLICY_VIOLATION, "most packets of this uplink were refused")
            self._metrics.packet(verdict)

    def end(self, session_id: str, reason: EndReason) -> None:
        """Close the uplink of a session that has ended, if it is open here."""
        if uplink := self._open.get(session_id):
            self._close(uplink, SESSION_ENDED, EndReason.sentence(reason))

    def _close(self, uplink: Uplink, code: int, reason: str) -> None:
        """Close an uplink without waiting for the peer, which may not read."""
        if uplink.close_code is not None:
            return
        uplink.close_code = code
        if self._open.get(uplink.session.session_id) is uplink:
            del self._open[uplink.session.session_id]
        task = asyncio.create_task(_close_socket(uplink.socket, code, reason), name="close uplink")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def refresh_owners(self) -> None:
        """Read the state of all open uplinks' sessions; one step of a loop. Raises the errors of Redis.

        While Redis does not answer, uplinks stay open and owners the same: they may still be right when it answers.
        """
        await self._clock.sleep(OWNER_REFRESH_INTERVAL_S)
        self._close_expired()
        uplinks = list(self._open.values())
        if uplinks:
            states = await self._registry.uplink_states([uplink.session.session_id for uplink in uplinks])
            for uplink in uplinks:
                self._apply(uplink, states[uplink.session.session_id])

    def _close_expired(self) -> None:
        now_unix_s = self._clock.unix_s()
        for uplink in list(self._open.values()):
            if uplink.expires_unix_s < now_unix_s:
                self._close(uplink, TOKEN_EXPIRED, "the token has expired")

    def _apply(self, uplink: Uplink, state: UplinkState) -> None:
        uplink.motion.owner = state.owner
        if state.end_reason is not None:
            self._close(uplink, SESSION_ENDED, EndReason.sentence(state.end_reason))
        elif state.connection_id not in {None, uplink.connection_id}:  # None: Redis came back empty
            self._close(uplink, REPLACED, "replaced by another uplink of this session")

    async def keep_sessions_alive(self) -> None:
        """Renew the sessions of all open uplinks; one step of a loop. Raises the errors of Redis."""
        await self._clock.sleep(KEEP_ALIVE_INTERVAL_S)
        uplinks = list(self._open.values())
        if uplinks:
            held = [OpenUplink(uplink.session, uplink.connection_id) for uplink in uplinks]
            kept = await self._registry.keep_uplinks(held, self._speaker_ttl_s)
            for uplink in uplinks:
                if session := kept[uplink.session.session_id]:
                    uplink.session = session
                else:
                    self._close(uplink, SESSION_ENDED, EndReason.sentence(None))

    async def aclose(self) -> None:
        """Wait for the closes that are in progress."""
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _close_socket(socket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await socket.close(code, reason)
    except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
        pass  # the peer has left, or does not read: then the server's pings end the connection


router = APIRouter()


@router.websocket("/v1/sessions/{session_id}/uplink")
async def uplink(socket: WebSocket, session_id: str) -> None:
    uplinks: Uplinks = socket.app.state.uplinks
    await uplinks.run(socket, session_id)
