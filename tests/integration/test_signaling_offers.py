"""Offers as real clients make them: each viewer decodes the stream, with all that its offer says beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pylibsrtp
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RTCP_RTPFB_NACK, RtcpRtpfbPacket, RtpPacket
from hostile.whep import verdicts
from integration.test_signaling_media import SESSION, World, eventually, world

pytestmark = pytest.mark.integration
__all__ = ["world"]  # a fixture

VIDEO, AUDIO = "video recvonly", "audio recvonly"


def hidden(sdp: str) -> str:
    """As a browser hides its addresses (mDNS). It says that no other candidates come."""
    return re.sub(r"(a=candidate:\S+ 1 udp \d+) \S+", r"\1 0f3b9f6e-2f1c-4a52-9d38-0d5f2a6f4b11.local", sdp)


def bundle_only(sdp: str) -> str:
    """As Firefox and GStreamer offer every section but the first under max-bundle."""
    head, tail = sdp[: sdp.index("m=video")], sdp[sdp.index("m=video") :]
    return head + re.sub(r"m=video \d+", "m=video 0", tail) + "a=bundle-only\r\n"


def bare_bundle_only(sdp: str) -> str:
    """The same, with nothing of the connection in it (RFC 9143, section 7.1.3)."""
    text = bundle_only(sdp)
    head, tail = text[: text.index("m=video")], text[text.index("m=video") :]
    lines = tail.splitlines(keepends=True)
    shared = ("a=candidate", "a=end-of", "a=ice-", "a=fingerprint", "a=setup", "a=rtcp:", "a=rtcp-mux")
    return head + "".join(line for line in lines if not line.startswith(shared))


def odd_audio(sdp: str) -> str:
    """Audio in a codec that no WebRTC endpoint knows."""
    return sdp.replace("opus/48000/2", "mpeg4-generic/48000/2")


def spaced(sdp: str) -> str:
    """Blanks after the separators of fmtp lines, and the parameters the other way round."""
    return re.sub(r"(level-asymmetry-allowed=1);(packetization-mode=1);(profile-level-id=\w+)", r"\3; \2; \1", sdp)


def unbundled(sdp: str) -> str:
    return re.sub(r"a=group:BUNDLE.*\r\n", "", sdp)


@dataclass(frozen=True)
class Client:
    """What a client offers, how its text differs from aiortc's, and what each of its sections is answered."""

    steps: list[str]
    spoil: Callable[[str], str]
    expected: list[str]
    policy: RTCBundlePolicy = RTCBundlePolicy.MAX_BUNDLE


CLIENTS = {
    "hidden addresses": Client([VIDEO], hidden, ["video sendonly"]),
    "audio first": Client([AUDIO, VIDEO], str, ["audio sendonly", "video sendonly"]),
    "audio first, many transports": Client(
        [AUDIO, VIDEO], str, ["audio sendonly", "video sendonly"], RTCBundlePolicy.MAX_COMPAT
    ),
    "audio last": Client([VIDEO, AUDIO], str, ["video sendonly", "audio sendonly"]),
    "bundle-only": Client([AUDIO, VIDEO], bundle_only, ["audio sendonly", "video sendonly"]),
    "bundle-only and bare": Client([AUDIO, VIDEO], bare_bundle_only, ["audio sendonly", "video sendonly"]),
    "unknown audio codec": Client([VIDEO, AUDIO], odd_audio, ["video sendonly", "audio refused"]),
    "fmtp with blanks": Client([VIDEO], spaced, ["video sendonly"]),
    "no bundle group": Client([VIDEO], unbundled, ["video sendonly"]),
}


async def post(client: httpx.AsyncClient, offer: str) -> httpx.Response:
    return await client.post(
        f"/v1/whep/{SESSION.session_id}", content=offer, headers={"Content-Type": "application/sdp"}
    )


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_sees_the_stream(world: World, name: str) -> None:
    client = CLIENTS[name]
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=client.policy))
    for kind, direction in map(str.split, client.steps):
        peer.addTransceiver(kind, direction=direction)
    await peer.setLocalDescription(await peer.createOffer())
    answer = await post(world.client, client.spoil(peer.localDescription.sdp))
    assert answer.status_code == 201, answer.text
    assert verdicts(answer.text) == client.expected
    # aiortc itself knows neither of these two forms of audio.
    await peer.setRemoteDescription(RTCSessionDescription(answer.text.replace("mpeg4-generic", "opus"), "answer"))
    (video,) = (one.receiver for one in peer.getTransceivers() if one.kind == "video")
    for _ in range(5):
        await video.track.recv()
    if not any(verdict.endswith("refused") for verdict in client.expected):
        # aiortc does not know that a section can be refused: it calls the connection failed while the video plays.
        assert peer.connectionState == "connected"
    await peer.close()


async def test_the_end_of_hidden_candidates_may_be_trickled(world: World) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    await peer.setLocalDescription(await peer.createOffer())
    bare = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", peer.localDescription.sdp)
    answer = await post(world.client, bare)
    fragment = "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 0f3b9f6e.local 60000 typ host\r\n"
    patched = await world.client.patch(
        answer.headers["location"],
        content=fragment + "a=end-of-candidates\r\n",
        headers={"Content-Type": "application/trickle-ice-sdpfrag"},
    )
    assert patched.status_code == 204
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    await receiver.track.recv()
    await eventually(lambda: peer.connectionState == "connected")
    await peer.close()


class LosesOne:
    """SRTP that loses the twentieth packet."""

    def __init__(self, srtp: pylibsrtp.Session) -> None:
        self._srtp = srtp
        self._seen = 0
        self.lost: int | None = None

    def unprotect(self, data: bytes) -> bytes:
        self._seen += 1
        if self._seen == 20:
            self.lost = int.from_bytes(data[2:4], "big")
            raise pylibsrtp.Error("lost")
        return bytes(self._srtp.unprotect(data))

    def unprotect_rtcp(self, data: bytes) -> bytes:
        return bytes(self._srtp.unprotect_rtcp(data))


async def test_without_rtx_a_lost_packet_comes_again_as_it_was(world: World) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    arrived: list[RtpPacket] = []

    async def record(packet: RtpPacket, arrival_time_ms: int) -> None:
        arrived.append(packet)

    receiver._handle_rtp_packet = record
    await peer.setLocalDescription(await peer.createOffer())
    answer = await post(world.client, re.sub(r"a=(rtpmap:\d+ rtx|fmtp:\d+ apt).*\r\n", "", peer.localDescription.sdp))
    assert "rtx" not in answer.text
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    await eventually(lambda: bool(arrived))
    loses = receiver.transport._rx_srtp = LosesOne(receiver.transport._rx_srtp)
    await eventually(lambda: loses.lost is not None)
    nack = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=arrived[0].ssrc, lost=[loses.lost])
    await receiver.transport._send_rtp(bytes(nack))
    await eventually(lambda: any(packet.sequence_number == loses.lost for packet in arrived))
    assert {packet.ssrc for packet in arrived} == {arrived[0].ssrc}
    await peer.close()
