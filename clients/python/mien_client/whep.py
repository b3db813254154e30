"""One WHEP connection on aiortc (draft-ietf-wish-whep), with one or more pairs of a picture and a voice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import av
import httpx
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver

from mien_client.api import MienError, NotMien, Unreachable, authorization, checked_address, refuse_failure
from mien_client.nacks import RepeatedNacks
from mien_client.voice_packets import VoicePacket, VoiceTap
from mien_shared.settings import IceServer

_TIMEOUT_S = 10.0


class WhepError(Exception):
    """The viewer could not connect."""


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """One decoded picture. received_unix_s: when aiortc returned it, Unix seconds."""

    picture: av.VideoFrame
    received_unix_s: float


@dataclass(frozen=True, slots=True)
class ReceivedSound:
    """20 ms of a decoded voice, after the jitter buffer.

    received_unix_s: when aiortc returned it. timestamp: of RTP. captured_unix_s: when it was recorded, by the sender's
    clock. None where it is not known (yet).
    """

    sound: av.AudioFrame
    received_unix_s: float
    timestamp: int | None = None
    captured_unix_s: float | None = None


@dataclass(frozen=True)
class ReceivingSlot:
    """One picture and, if it was asked for, one voice of a connection."""

    picture: RTCRtpTransceiver
    voice: RTCRtpTransceiver | None = None
    tap: VoiceTap | None = None

    @property
    def video_mid(self) -> str:
        return str(self.picture.mid)

    @property
    def pictures(self) -> RemoteStreamTrack:
        """The decoded pictures."""
        return self.picture.receiver.track

    @property
    def sound(self) -> RemoteStreamTrack | None:
        """The decoded voice; None if it was not asked for, or the service has none."""
        if self.voice is None or self.voice.currentDirection != "recvonly":
            return None
        return self.voice.receiver.track

    async def next_picture(self) -> ReceivedFrame:
        """The next decoded picture. Raises MediaStreamError when the connection has ended."""
        picture = await self.pictures.recv()
        assert isinstance(picture, av.VideoFrame)
        return ReceivedFrame(picture, time.time())

    async def next_sound(self) -> ReceivedSound:
        """The next 20 ms of the decoded voice. Raises MediaStreamError when the connection has ended."""
        assert self.sound is not None and self.tap is not None, "there is no voice"
        sound = await self.sound.recv()
        assert isinstance(sound, av.AudioFrame)
        timestamp = self.tap.timestamp_of(sound.pts or 0)
        captured_s = None if timestamp is None else self.tap.captured_s(timestamp)
        return ReceivedSound(sound, time.time(), timestamp, captured_s)


class WhepConnection:
    """An async context manager: inside it media arrives in `slots`.

    slots: how many to offer. on_voice: if given, voices are offered too, and it is called with the number of the slot
    and each packet of voice. It must not block.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        ice_servers: Sequence[IceServer] = (),
        slots: int = 1,
        on_voice: Callable[[int, VoicePacket], None] | None = None,
    ) -> None:
        self._url = checked_address(url)
        self._token = token
        # An explicit list, because without one aiortc uses a public STUN server.
        servers = [RTCIceServer(one.urls, one.username, one.credential) for one in ice_servers]
        self.peer = RTCPeerConnection(RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        self._count, self._on_voice = slots, on_voice
        self._nacks: list[asyncio.Task[None]] = []
        self._resource: str | None = None
        self.slots: list[ReceivingSlot] = []
        self.lost = asyncio.Event()

    @property
    def viewer_id(self) -> str:
        """The last part of the connection's Location, by which the service names it."""
        return (self._resource or "").rpartition("/")[2]

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

    def _offer_slot(self, number: int) -> ReceivingSlot:
        picture = self.peer.addTransceiver("video", direction="recvonly")
        codecs = RTCRtpReceiver.getCapabilities("video").codecs
        picture.setCodecPreferences([codec for codec in codecs if codec.mimeType in {"video/H264", "video/rtx"}])
        self._nacks.append(asyncio.create_task(RepeatedNacks(picture.receiver).run(), name="repeated-nacks"))
        if self._on_voice is None:
            return ReceivingSlot(picture)
        on_voice, voice = self._on_voice, self.peer.addTransceiver("audio", direction="recvonly")
        tap = VoiceTap(voice.receiver, lambda packet: on_voice(number, packet))
        return ReceivingSlot(picture, voice, tap)

    async def _connect(self) -> None:
        self.slots = [self._offer_slot(number) for number in range(self._count)]
        changed = asyncio.Event()

        def on_state() -> None:
            if self.peer.connectionState in {"failed", "closed"}:
                self.lost.set()
            if self.peer.connectionState != "connecting":
                changed.set()

        self.peer.on("connectionstatechange", on_state)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"Content-Type": "application/sdp", **authorization(self._token)}
        try:
            response = await self._http.post(self._url, content=self.peer.localDescription.sdp, headers=headers)
        except httpx.RequestError as error:
            raise Unreachable(f"{self._url} does not answer: {error or type(error).__name__}") from error
        refuse_failure(response)
        if response.status_code != HTTPStatus.CREATED or "location" not in response.headers:
            raise NotMien(f"{self._url} answers, but not as a WHEP endpoint does")
        self._resource = urljoin(self._url, response.headers["location"])
        try:
            await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        except ValueError as error:
            raise NotMien(f"{self._url} answers, but not with an SDP answer to our offer: {error}") from error
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await changed.wait()
        except TimeoutError as error:
            raise WhepError(f"the peer connection was not established within {_TIMEOUT_S:g} s") from error
        if self.lost.is_set():
            raise WhepError("the peer connection failed")

    async def received_bytes(self) -> int:
        """Bytes received so far, including RTP and RTCP headers."""
        stats = await self.peer.getStats()
        return sum({entry.id: entry.bytesReceived for entry in stats.values() if entry.type == "transport"}.values())

    async def leave(self) -> MienError | None:
        """Tell the service that this viewer leaves. Returns why the service had ended it before, None if it had not."""
        resource, self._resource = self._resource, None
        if resource is None:
            return None
        try:
            refuse_failure(await self._http.delete(resource, headers=authorization(self._token)))
        except MienError as error:
            return error
        except (httpx.HTTPError, NotMien):
            pass  # the service notices that the connection closes
        return None

    async def aclose(self) -> None:
        """Tell the service that this viewer leaves, then close the connection."""
        await self.leave()
        for task in self._nacks:
            task.cancel()
        await self.peer.close()
        with contextlib.suppress(RuntimeError):
            await self._http.aclose()
