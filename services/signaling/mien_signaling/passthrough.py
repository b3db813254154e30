"""Ready RTP payloads through aiortc: everything that leans on aiortc's private parts, and a check that they exist.

aiortc 1.16 sends a video frame through `RTCRtpSender._next_encoded_frame`, which would read a picture from the track
and encode it for this one viewer. Here that method is replaced on the instance, so a frame that was packetised once
goes out to each viewer as it is. `_send_keyframe` and `_handle_rtcp_packet` are replaced so that PLI, FIR, REMB, NACK
and receiver reports, which aiortc would use up for its own encoder, come out. The version is pinned below 1.17
(pyproject.toml).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol

from aioice import Connection
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTCEncodedFrame
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)

from mien_signaling.fanout import PacketisedFrame

#: Constrained baseline is what we send; a receiver that offers plain baseline alone can decode it too.
_H264_PROFILES = ("42e01f", "42001f")

_HOOKS = {
    "_next_encoded_frame": ["self", "codec"],
    "_send_keyframe": ["self"],
    "_handle_rtcp_packet": ["self", "packet"],
}
_CONSENT_HOOKS = ("query_consent", "close")
_FRAME_FIELDS = ["self", "payloads", "timestamp", "audio_level"]
_RTT = "_RTCRtpSender__rtt"


class HookPointMissing(RuntimeError):
    """This aiortc is not built as passthrough needs it; the text names what is missing."""


def check_hook_points(sender: type = RTCRtpSender) -> None:
    """Raise HookPointMissing unless aiortc's sender has every part that is replaced here, as it is expected."""
    for name, expected in _HOOKS.items():
        method = getattr(sender, name, None)
        if method is None or list(inspect.signature(method).parameters) != expected:
            raise HookPointMissing(f"aiortc's RTCRtpSender has no {name}({', '.join(expected)})")
    if list(inspect.signature(RTCEncodedFrame.__init__).parameters) != _FRAME_FIELDS:
        raise HookPointMissing(f"aiortc's RTCEncodedFrame does not take {', '.join(_FRAME_FIELDS[1:])}")
    for name in _CONSENT_HOOKS:
        if not inspect.iscoroutinefunction(getattr(Connection, name, None)):
            raise HookPointMissing(f"aioice's Connection has no {name}()")
    if "__slots__" in vars(sender):
        raise HookPointMissing("aiortc's RTCRtpSender does not let an instance replace its methods")


class ReceiverFeedback(Protocol):
    """What a viewer's receiver says of the stream."""

    def on_keyframe_wanted(self) -> None:
        """PLI or FIR."""

    def on_nack(self, packets: int) -> None:
        """So many packets are to be sent again; aiortc does."""

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        """A receiver report: the share lost since the last one, 0 to 1, and the round trip where it is known."""

    def on_remb(self, bitrate_bps: int) -> None:
        """The receiver's estimate of what its path carries."""


class PassthroughTrack(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Stands for the video in SDP and keeps the sender going; nothing is ever read from it."""

    kind = "video"

    async def recv(self) -> None:
        raise MediaStreamError("a passthrough track holds no pictures")


def h264_preferences() -> list[RTCRtpCodecCapability]:
    """H.264 and retransmission, nothing else. To be set before setRemoteDescription, or aiortc answers with VP8."""
    capabilities = RTCRtpSender.getCapabilities("video").codecs
    h264 = [
        codec
        for profile in _H264_PROFILES
        for codec in capabilities
        if codec.mimeType == "video/H264" and codec.parameters.get("profile-level-id") == profile
    ]
    return h264 + [codec for codec in capabilities if codec.mimeType == "video/rtx"]


def install(
    sender: RTCRtpSender, next_frame: Callable[[], Awaitable[PacketisedFrame]], feedback: ReceiverFeedback
) -> None:
    """Make `sender` send what `next_frame` gives and tell `feedback` what comes back. Call before it starts."""
    handle_rtcp_packet = sender._handle_rtcp_packet

    async def next_encoded_frame(codec: RTCRtpCodecParameters) -> RTCEncodedFrame:
        frame = await next_frame()
        return RTCEncodedFrame(frame.payloads, frame.pts_90k, None)

    async def handle_rtcp(packet: AnyRtcpPacket) -> None:
        await handle_rtcp_packet(packet)
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == sender._ssrc:
                    feedback.on_report(report.fraction_lost / 256, getattr(sender, _RTT))
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            feedback.on_nack(len(packet.lost))
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bitrate_bps, ssrcs = unpack_remb_fci(packet.fci)
            except ValueError:
                return  # some other application's message, or a broken one
            if sender._ssrc in ssrcs:
                feedback.on_remb(bitrate_bps)

    sender._next_encoded_frame = next_encoded_frame
    sender._send_keyframe = feedback.on_keyframe_wanted
    sender._handle_rtcp_packet = handle_rtcp


def end_consent_checks_with(peer: RTCPeerConnection) -> None:
    """Keep a connection that is closed just as ICE completes from checking consent for ever.

    aioice 0.13: `connect` wakes up after `close` is through and starts the consent task, which nobody will cancel. Call
    after setRemoteDescription, when every transport is there and none has started.
    """
    transports = {transceiver.receiver.transport.transport for transceiver in peer.getTransceivers()}
    if peer.sctp is not None:
        transports.add(peer.sctp.transport.transport)
    for transport in transports:
        connection = transport._connection
        connection.query_consent = _unless_closed(connection)


def _unless_closed(connection: Connection) -> Callable[[], Awaitable[None]]:
    query_consent = connection.query_consent

    async def query() -> None:
        if not connection._closing:
            await query_consent()

    return query
