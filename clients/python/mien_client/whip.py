"""The uplink over WHIP: motion over an unordered data channel, and voice beside it. The newest packet wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from operator import attrgetter
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import httpx
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from mien_client.api import MienError, NotMien, Unreachable, authorization, checked_address, refuse_failure
from mien_client.outgoing_voice import OutgoingVoice, send_in_time
from mien_client.uplink import UplinkClosed
from mien_shared.settings import IceServer
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.newest import NewestWins

_TIMEOUT_S = 20.0
_LABEL = "motion"
#: What waits in the data channel: a few packets. If more wait, the network is slower than the face.
_MOST_BUFFERED_BYTES = 1024


class WhipUplink:
    """Sends the motion and the voice of one session over one peer connection. It does not reconnect.

    voice: a track of sound, None for motion alone. on_voice: called with each packet of Opus before it is sent, and its
    time in the track, in ticks of 48 kHz. is_muted: asked for every 20 ms of voice. Counters: `sent` and `superseded`
    packets, `sent_bytes` of payload.
    """

    def __init__(
        self,
        url: str,
        token: str,
        voice: MediaStreamTrack | None = None,
        ice_servers: Sequence[IceServer] = (),
        on_voice: Callable[[bytes, int], None] | None = None,
        is_muted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = checked_address(url)
        self._token = token
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        # An explicit list, because without one aiortc uses a public STUN server.
        servers = [RTCIceServer(one.urls, one.username, one.credential) for one in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        if voice is not None:
            outgoing = OutgoingVoice(voice, is_muted)
            send_in_time(self._peer.addTrack(outgoing), outgoing, on_voice)
        self._channel = self._peer.createDataChannel(_LABEL, ordered=False, maxRetransmits=0)
        self._resource: str | None = None
        self._waiting: NewestWins[MotionPacket] = NewestWins(attrgetter("may_be_dropped"))
        self._open, self._ended = asyncio.Event(), asyncio.Event()
        self.sent = 0
        self.sent_bytes = 0
        self.superseded = 0

    def push(self, packet: MotionPacket) -> None:
        """Send this packet, or keep it until the channel is free. Raises UplinkClosed if the connection has ended."""
        if self._ended.is_set():
            raise UplinkClosed("the connection of the uplink has ended")
        self.superseded += self._waiting.push(packet)
        if self._channel.bufferedAmount < _MOST_BUFFERED_BYTES:
            for ready in self._waiting.take():
                data = ready.pack()
                self._channel.send(data)
                self.sent += 1
                self.sent_bytes += len(data)

    async def ended(self) -> str:
        """Return once the connection has ended, with the service's reason if it gives one."""
        await self._ended.wait()
        try:
            await self._leave()
        except MienError as error:
            return error.detail
        return "the connection has ended"

    async def __aenter__(self) -> Self:
        """Connect, and wait for the data channel.

        Raises MienError if the service refuses, Unreachable if it does not answer or no connection comes up, NotMien if
        it does not answer as WHIP says.
        """
        try:
            await self._connect()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave()
        except (MienError, Unreachable):
            pass  # it has ended already
        finally:
            await self._close()

    async def _connect(self) -> None:
        def on_state() -> None:
            if self._peer.connectionState in {"failed", "closed"}:
                self._ended.set()

        self._channel.on("open", self._open.set)
        self._peer.on("connectionstatechange", on_state)
        await self._peer.setLocalDescription(await self._peer.createOffer())
        headers = {"Content-Type": "application/sdp", **authorization(self._token)}
        response = await self._request("POST", self._url, headers, self._peer.localDescription.sdp)
        if response.status_code != HTTPStatus.CREATED or "location" not in response.headers:
            raise NotMien(f"{self._url} answers, but not as a WHIP endpoint does")
        self._resource = urljoin(self._url, response.headers["location"])
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        except ValueError as error:
            raise NotMien(f"{self._url} answers, but not with an SDP answer to our offer: {error}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._open.wait()
        except TimeoutError as error:
            raise Unreachable(f"no connection to {self._url} came up within {_TIMEOUT_S:g} s") from error

    async def _leave(self) -> None:
        if self._resource is not None:
            await self._request("DELETE", self._resource, authorization(self._token))

    async def _request(self, method: str, url: str, headers: dict[str, str], content: str = "") -> httpx.Response:
        try:
            response = await self._http.request(method, url, content=content, headers=headers)
        except httpx.RequestError as error:
            raise Unreachable(f"{url} does not answer: {error or type(error).__name__}") from error
        refuse_failure(response)
        return response

    async def _close(self) -> None:
        await self._http.aclose()
        await self._peer.close()
