from __future__ import annotations

import asyncio
import time

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from mien_shared.clock import SystemClock
from mien_signaling import passthrough
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.h264_format import H264Format
from mien_signaling.passthrough import HookPointMissing, PassthroughTrack, check_hook_points, h264_preferences
from mien_signaling.retransmission import Ignored

FORMAT = H264Format(102, "packetization-mode=1", (), None)


def test_this_aiortc_has_every_hook_point() -> None:
    check_hook_points()


class WithoutKeyframes(RTCRtpSender):  # type: ignore[misc]
    _send_keyframe = None


class WithAnotherLoop(RTCRtpSender):  # type: ignore[misc]
    async def _run_rtp(self, codec: object, deadline: float) -> None: ...


class Slotted(RTCRtpSender):  # type: ignore[misc]
    __slots__ = ()


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        (WithoutKeyframes, r"RTCRtpSender has no _send_keyframe\(self\)"),
        (WithAnotherLoop, r"RTCRtpSender has no _run_rtp\(self, codec\)"),
        (Slotted, "does not let an instance replace its methods"),
    ],
)
def test_another_aiortc_is_refused_by_name(sender: type, message: str) -> None:
    with pytest.raises(HookPointMissing, match=message):
        check_hook_points(sender)


class WithAnotherReceive(RTCRtpReceiver):  # type: ignore[misc]
    async def receive(self) -> None: ...


def test_another_receiver_is_refused_by_name() -> None:
    with pytest.raises(HookPointMissing, match=r"RTCRtpReceiver has no receive\(self, parameters\)"):
        check_hook_points(receiver=WithAnotherReceive)


async def test_no_offer_can_start_a_decoder() -> None:
    """Even a section that sends, if one ever reached aiortc."""
    viewer, server = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    viewer.addTransceiver("video", direction="sendrecv")
    transceiver = server.addTransceiver(PassthroughTrack(), direction="sendrecv")

    async def no_frame() -> PacketisedFrame:
        await asyncio.Event().wait()
        raise AssertionError("nothing is sent here")

    passthrough.install(transceiver, FORMAT, no_frame, Heard(), SystemClock())
    await viewer.setLocalDescription(await viewer.createOffer())
    await server.setRemoteDescription(RTCSessionDescription(viewer.localDescription.sdp, "offer"))
    await server.setLocalDescription()
    assert transceiver.currentDirection == "sendrecv"
    await viewer.setRemoteDescription(RTCSessionDescription(server.localDescription.sdp, "answer"))
    async with asyncio.timeout(20):
        while not transceiver.sender._RTCRtpSender__started:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert transceiver.receiver._RTCRtpReceiver__decoder_thread is None
    await viewer.close()
    await server.close()


async def test_h264_is_answered_to_an_offer_that_prefers_vp8() -> None:
    viewer, server = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    viewer.addTransceiver("video", direction="recvonly")
    offer = await viewer.createOffer()
    assert offer.sdp.index("VP8") < offer.sdp.index("H264")
    transceiver = server.addTransceiver(PassthroughTrack(), direction="sendonly")
    transceiver.setCodecPreferences(h264_preferences())
    await viewer.setLocalDescription(offer)
    await server.setRemoteDescription(RTCSessionDescription(viewer.localDescription.sdp, "offer"))
    answer = (await server.createAnswer()).sdp
    assert "VP8" not in answer
    assert answer.index("profile-level-id=42e01f") < answer.index("profile-level-id=42001f")
    assert "rtx/90000" in answer
    await viewer.close()
    await server.close()


def test_constrained_baseline_comes_first() -> None:
    profiles = [codec.parameters.get("profile-level-id") for codec in h264_preferences()]
    assert profiles == ["42e01f", "42001f", None]


async def test_nothing_reads_pictures_from_a_passthrough_track() -> None:
    with pytest.raises(MediaStreamError):
        await PassthroughTrack().recv()


def test_a_field_under_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passthrough, "FIELDS", ("_RTCRtpSender__moved",))
    with pytest.raises(HookPointMissing, match="RTCRtpSender has no field _RTCRtpSender__moved"):
        check_hook_points()


class Heard:
    """What a receiver said."""

    def __init__(self) -> None:
        self.round_trips_s: list[float | None] = []

    def on_keyframe_wanted(self) -> None: ...

    def on_nack(self, packets: int) -> None: ...

    def on_nack_ignored(self, reason: Ignored, packets: int) -> None: ...

    def on_sent_again(self) -> None: ...

    @property
    def stream_bps(self) -> float:
        return 0.0

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        self.round_trips_s.append(rtt_s)

    def on_remb(self, bitrate_bps: int) -> None: ...


async def test_a_round_trip_is_that_of_the_last_report_and_none_when_the_clock_was_set_meanwhile() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver(PassthroughTrack(), direction="sendonly")
    sender = transceiver.sender
    heard = Heard()

    async def no_frame() -> PacketisedFrame:
        raise AssertionError("nothing is sent here")

    passthrough.install(transceiver, FORMAT, no_frame, heard, SystemClock())
    sender._RTCRtpSender__lsr = 77
    held_s = 0.5
    for sent_ago_s, lsr in ((held_s + 0.1, 77), (held_s + 3600, 77), (held_s - 3600, 77), (held_s + 0.1, 76)):
        sender._RTCRtpSender__lsr_time = time.time() - sent_ago_s
        info = RtcpReceiverInfo(sender._ssrc, 0, 0, 0, 0, lsr, int(held_s * 65536))
        await sender._handle_rtcp_packet(RtcpRrPacket(ssrc=1, reports=[info]))
    await peer.close()
    first, *others = heard.round_trips_s
    assert first == pytest.approx(0.1, abs=0.05)
    assert others == [None, None, None]
