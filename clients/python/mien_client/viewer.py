"""A WHEP viewer on aiortc (draft-ietf-wish-whep). It does what a browser does, for programs and tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import av
import httpx
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver

from mien_client.api import MienError, NotMien, Unreachable, authorization, checked_address, refuse_failure
from mien_client.nacks import RepeatedNacks
from mien_shared.settings import IceServer

_TIMEOUT_S = 10.0
_VIEWER_ENDED = "viewer-ended"


class WhepError(Exception):
    """The viewer could not connect."""


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """One decoded picture. received_unix_s: when aiortc returned it, Unix seconds."""

    picture: av.VideoFrame
    received_unix_s: float


class Viewer:
    """Watches one session. An async context manager: iterate over `frames()` inside it."""

    def __init__(self, whep_url: str, token: str | None = None, ice_servers: Sequence[IceServer] = ()) -> None:
        self._whep_url = checked_address(whep_url)
        self._token = token
        # An explicit list, because without one aiortc uses a public STUN server.
        servers = [RTCIceServer(one.urls, one.username, one.credential) for one in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        self._resource: str | None = None
        self._track: RemoteStreamTrack | None = None
        self._lost = asyncio.Event()
        self._nacks: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises MienError if the service refuses, Unreachable if it does not answer, NotMien if it does not answer as
        WHEP says, WhepError if the peer connection fails.
        """
        try:
            await self._connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _connect(self) -> None:
        transceiver = self._peer.addTransceiver("video", direction="recvonly")
        codecs = RTCRtpReceiver.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType in {"video/H264", "video/rtx"}])
        self._nacks = asyncio.create_task(RepeatedNacks(transceiver.receiver).run(), name="repeated-nacks")
        connected = asyncio.Event()

        def on_track(track: RemoteStreamTrack) -> None:
            self._track = track

        def on_state() -> None:
            if self._peer.connectionState == "connected":
                connected.set()
            elif self._peer.connectionState in {"failed", "closed"}:
                connected.set()
                self._lost.set()

        self._peer.on("track", on_track)
        self._peer.on("connectionstatechange", on_state)
        await self._peer.setLocalDescription(await self._peer.createOffer())
        headers = {"Content-Type": "application/sdp", **authorization(self._token)}
        try:
            response = await self._http.post(self._whep_url, content=self._peer.localDescription.sdp, headers=headers)
        except httpx.RequestError as error:
            raise Unreachable(f"{self._whep_url} does not answer: {error or type(error).__name__}") from error
        refuse_failure(response)
        if response.status_code != HTTPStatus.CREATED or "location" not in response.headers:
            raise NotMien(f"{self._whep_url} answers, but not as a WHEP endpoint does")
        self._resource = urljoin(self._whep_url, response.headers["location"])
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        except ValueError as error:
            raise NotMien(f"{self._whep_url} answers, but not with an SDP answer to our offer: {error}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await connected.wait()
        except TimeoutError as error:
            raise WhepError(f"the peer connection was not established within {_TIMEOUT_S:g} s") from error
        if self._lost.is_set():
            raise WhepError("the peer connection failed")

    async def frames(self) -> AsyncIterator[ReceivedFrame]:
        """Decoded pictures as they arrive, until the connection ends."""
        assert self._track is not None, "frames() needs a connected viewer"
        while True:
            try:
                picture = await self._track.recv()
            except MediaStreamError:
                return
            assert isinstance(picture, av.VideoFrame)
            yield ReceivedFrame(picture, time.time())

    async def received_bytes(self) -> int:
        """Bytes received on this viewer's transport so far, including RTP and RTCP headers."""
        stats = await self._peer.getStats()
        return sum(entry.bytesReceived for entry in stats.values() if entry.type == "transport")

    async def leave(self) -> str | None:
        """Tell the service that this viewer leaves. Returns why the service had ended it before, None if it had not."""
        resource, self._resource = self._resource, None
        if resource is None:
            return None
        try:
            response = await self._http.delete(resource, headers=authorization(self._token))
            refuse_failure(response)
        except MienError as error:
            return error.detail if error.code == _VIEWER_ENDED else None
        except (httpx.HTTPError, NotMien):
            pass  # the service notices that the connection closes
        return None

    async def aclose(self) -> None:
        """Tell the service that this viewer leaves, then close the connection."""
        await self.leave()
        if self._nacks is not None:
            self._nacks.cancel()
        await self._peer.close()
        await self._http.aclose()
