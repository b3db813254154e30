"""Uplinks: one WebSocket per speaker, from handshake to close. `packet_filter.py` decides which packets are accepted.

A sender sends its token as `Authorization: Bearer`. A browser, which cannot set headers, sends it as a subprotocol:
`Sec-WebSocket-Protocol: mien.v1, bearer.TOKEN`; the gateway selects `mien.v1`. The gateway refuses a connection before
the handshake by an HTTP status with a problem document (401, 403, 404, 429, 503). It closes an open one with a code:

1008 most of the packets were refused · 1009 a message was too long · 1012 the gateway is shutting down ·
4409 another uplink of the session has replaced this one · 4410 the session has ended.
A sender may reconnect after 1009 and 1012, but not after the other codes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from mien_gateway.access import Access
from mien_gateway.metrics import GatewayMetrics
from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.messages import InboundMotion, SessionRecord
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, Registry
from mien_shared.clock import Clock
from mien_shared.http.problems import Code, Problem, redis_problems
from mien_shared.http.tokens import bearer_token
from mien_shared.wire.motion import MAX_PACKET_BYTES, choose_subprotocol
from mien_shared.wire.packet_filter import PacketFilter, PacketVerdict

_BEARER_SUBPROTOCOL = "bearer."

#: The longest message that the socket accepts. Up to here, a packet that is too long is counted as `length`.
MAX_MESSAGE_BYTES = 4 * MAX_PACKET_BYTES
#: How soon an uplink's packets go to the new generator after its session has moved.
OWNER_REFRESH_INTERVAL_S = 0.25
_CLOSE_TIMEOUT_S = 2.0

# WebSocket close codes (RFC 6455, section 7.4). Codes from 4000 are Mien's.
POLICY_VIOLATION = 1008
REPLACED = 4409
SESSION_ENDED = 4410


@dataclass(eq=False, slots=True)
class Uplink:
    """One open uplink. close_code: set when the gateway decides to close it; its packets are ignored afterwards."""

    session: SessionRecord
    socket: WebSocket
    filter: PacketFilter
    owner: str | None
    close_code: int | None = field(default=None)


class Uplinks:
    """All uplinks of this gateway, at most one per session."""

    def __init__(
        self,
        registry: Registry,
        forwarder: MotionForwarder,
        access: Access,
        metrics: GatewayMetrics,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._forwarder = forwarder
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._open: dict[str, Uplink] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, socket: WebSocket, session_id: str) -> None:
        """Serve one connection until it closes, or refuse it by an HTTP status before the handshake."""
        try:
            session, owner = await self._admit(socket, session_id)
        except Problem as problem:
            await socket.send_denial_response(problem.response())
            return
        await socket.accept(choose_subprotocol(socket.scope["subprotocols"]))
        uplink = Uplink(session, socket, PacketFilter(self._clock.monotonic_s()), owner)
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

    async def _admit(self, socket: WebSocket, session_id: str) -> tuple[SessionRecord, str | None]:
        self._access.request(socket)
        token = bearer_token(socket.headers.get("authorization"))
        for offered in socket.scope["subprotocols"]:
            if offered.startswith(_BEARER_SUBPROTOCOL):
                token = token or offered.removeprefix(_BEARER_SUBPROTOCOL)
        self._access.speaker(session_id, token)
        async with redis_problems():
            session = await self._registry.session(session_id)
            owners = await self._registry.owners([session_id])
        if session is None:
            raise Problem(Code.SESSION_NOT_FOUND, "there is no session with this id")
        return session, owners.get(session_id)

    async def _take_packets(self, uplink: Uplink) -> int:
        """Handle packets until the peer closes; returns the peer's close code."""
        while True:
            message = await uplink.socket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            if uplink.close_code is not None:
                continue  # wait until the peer answers the close
            data: bytes | None = message.get("bytes")
            now_s = self._clock.monotonic_s()
            verdict = uplink.filter.text(now_s) if data is None else uplink.filter.packet(data, now_s)
            if verdict is PacketVerdict.ACCEPTED and data is not None:
                if uplink.owner is None:
                    verdict = PacketVerdict.NO_OWNER
                else:
                    motion = InboundMotion(uplink.session.session_id, data, int(self._clock.unix_s() * 1e6))
                    assert uplink.filter.header is not None  # the filter has accepted a packet
                    self._forwarder.push(uplink.owner, motion, uplink.filter.header.may_be_dropped)
            elif uplink.filter.abusive:
                self._close(uplink, POLICY_VIOLATION, "most packets of this uplink were refused")
            self._metrics.packet(verdict)

    def end(self, session_id: str) -> None:
        """Close the uplink of a session that has ended, if it is open here."""
        if uplink := self._open.get(session_id):
            self._close(uplink, SESSION_ENDED, "the session has ended")

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
        """Read the owners of all open uplinks' sessions; one step of a loop. Raises the errors of Redis.

        While Redis does not answer, the owners stay the same: they may still be right when it answers again.
        """
        await self._clock.sleep(OWNER_REFRESH_INTERVAL_S)
        uplinks = list(self._open.values())
        if uplinks:
            owners = await self._registry.owners([uplink.session.session_id for uplink in uplinks])
            for uplink in uplinks:
                uplink.owner = owners.get(uplink.session.session_id)

    async def keep_sessions_alive(self) -> None:
        """Write the records of all open uplinks' sessions again; one step of a loop. Raises the errors of Redis."""
        await self._clock.sleep(KEEP_ALIVE_INTERVAL_S)
        for uplink in list(self._open.values()):
            if not await self._registry.keep_alive(uplink.session):
                self._close(uplink, SESSION_ENDED, "the session has ended")

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
