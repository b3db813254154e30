"""A speaker and listeners as real WebRTC peers (aiortc), whose voice is any bytes: nothing on the way decodes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import av
import httpx
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket
from av.stream import Stream

from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer

SECRET = "a secret of thirty-two bytes or more"
SDP = {"Content-Type": "application/sdp"}
FRAME_TICKS = 960
_NTP_UNIX_S = 2_208_988_800


class OpusTrack(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Gives packets that the test puts in, with their timestamps (48 kHz)."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._packets: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()

    def put(self, payload: bytes, timestamp: int) -> None:
        self._packets.put_nowait((payload, timestamp))

    async def recv(self) -> av.Packet[Stream]:
        payload, timestamp = await self._packets.get()
        packet = av.Packet(payload)
        packet.pts, packet.time_base = timestamp, Fraction(1, 48_000)
        return packet


def bearer(session_id: str, grants: frozenset[object] = SPEAKER_GRANTS) -> dict[str, str]:
    return {"Authorization": f"Bearer {TokenIssuer(SECRET).issue(session_id, grants)}"}  # type: ignore[arg-type]


class Talker:
    """A speaker over WHIP. label: of its data channel, None: no channel. headers: with its token."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        session_id: str,
        *,
        voice: bool = True,
        label: str | None = "motion",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._client = client
        self._session_id = session_id
        self.headers = headers or bearer(session_id)
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.track = OpusTrack()
        self.timestamp = 0
        self.channel: RTCDataChannel | None = None
        if voice:
            self.sender = self.peer.addTrack(self.track)
        if label is not None:
            self.channel = self.peer.createDataChannel(label, ordered=False, maxRetransmits=0)
        self.url = self.answer = ""

    async def offer(self) -> httpx.Response:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        content = self.peer.localDescription.sdp
        url = f"/v1/whip/{self._session_id}"
        return await self._client.post(url, content=content, headers=SDP | self.headers)

    async def join(self) -> None:
        response = await self.offer()
        assert response.status_code == 201, response.text
        self.url, self.answer = response.headers["location"], response.text
        await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await until(lambda: self.peer.connectionState == "connected")

    async def channel_open(self) -> RTCDataChannel:
        channel = self.channel
        assert channel is not None
        await until(lambda: channel.readyState == "open")
        return channel

    def say(self, payload: bytes, silence_ticks: int = 0) -> None:
        """Send one packet of 20 ms, after so much silence."""
        self.timestamp += silence_ticks
        self.track.put(payload, self.timestamp)
        self.timestamp += FRAME_TICKS

    async def talk(self, words: Callable[[int], bytes], packets: int, first: int = 0, pause_s: float = 0.02) -> None:
        for number in range(first, first + packets):
            self.say(words(number))
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        async with asyncio.timeout(20):
            await self.peer.close()


@dataclass
class Heard:
    """One packet as it arrived, with the time at which it did (Unix seconds)."""

    sequence: int
    timestamp: int
    marker: int
    payload: bytes
    level: tuple[bool, int] | None
    at_s: float


@dataclass
class Reported:
    """One sender report: at this Unix time, the stream had this timestamp."""

    unix_s: float
    timestamp: int
    at_s: float


@dataclass
class Ears:
    """What one receiver got, undecoded."""

    packets: list[Heard] = field(default_factory=list)
    reports: list[Reported] = field(default_factory=list)

    def listen(self, receiver: object) -> None:
        """Take the packets from an aiortc receiver before it decodes them."""

        async def on_rtp(packet: RtpPacket, arrival_time_ms: int) -> None:
            self.packets.append(
                Heard(
                    packet.sequence_number,
                    packet.timestamp,
                    packet.marker,
                    packet.payload,
                    packet.extensions.audio_level,
                    time.time(),
                )
            )

        on_rtcp_before = receiver._handle_rtcp_packet  # type: ignore[attr-defined]

        async def on_rtcp(packet: AnyRtcpPacket) -> None:
            if isinstance(packet, RtcpSrPacket):
                unix_s = packet.sender_info.ntp_timestamp / 2**32 - _NTP_UNIX_S
                self.reports.append(Reported(unix_s, packet.sender_info.rtp_timestamp, time.time()))
            await on_rtcp_before(packet)

        receiver._handle_rtp_packet = on_rtp  # type: ignore[attr-defined]
        receiver._handle_rtcp_packet = on_rtcp  # type: ignore[attr-defined]

    def capture_s(self, timestamp: int, clock_hz: int) -> float | None:
        """When this timestamp was recorded, by the newest report."""
        if not self.reports:
            return None
        report = self.reports[-1]
        ticks = (timestamp - report.timestamp + 2**31) % 2**32 - 2**31
        return report.unix_s + ticks / clock_hz


class Listener:
    """A viewer over WHEP. voice: whether its offer has an audio section."""

    def __init__(self, client: httpx.AsyncClient, session_id: str, *, voice: bool = True) -> None:
        self._client = client
        self._session_id = session_id
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.voice, self.picture = Ears(), Ears()
        if voice:
            self.voice.listen(self.peer.addTransceiver("audio", direction="recvonly").receiver)
        self.picture.listen(self.peer.addTransceiver("video", direction="recvonly").receiver)
        self.answer = ""

    async def join(self) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        content, url = self.peer.localDescription.sdp, f"/v1/whep/{self._session_id}"
        response = await self._client.post(url, content=content, headers=SDP)
        assert response.status_code == 201, response.text
        self.answer = response.text
        await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await until(lambda: self.peer.connectionState == "connected")

    async def hear(self, packets: int) -> None:
        await until(lambda: len(self.voice.packets) >= packets)

    async def close(self) -> None:
        async with asyncio.timeout(20):
            await self.peer.close()


async def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    """Return once it holds; a test that waits in vain fails by this."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
