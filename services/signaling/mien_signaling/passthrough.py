"""Ready RTP payloads through aiortc: everything that leans on aiortc's private parts, and a check that they exist.

aiortc 1.16 sends video in `RTCRtpSender._run_rtp`, which reads a picture from the track and encodes it for this one
viewer, then builds an object for each packet. Here that method is replaced on the instance: a frame that was packetised
once goes out to each viewer as it is, with nothing done for each packet but a header and SRTP (a third less CPU than
through `_next_encoded_frame`, see `mien bench fanout`). `_retransmit` is replaced because packets are remembered in
another form, `_send_keyframe` and `_handle_rtcp_packet` so that PLI, FIR, REMB, NACK and receiver reports, which aiortc
would use up for its own encoder, come out. The version is pinned below 1.17 (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Protocol

from aioice import Connection
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, clock
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_RTPFB_NACK,
    RTP_HISTORY_SIZE,
    AnyRtcpPacket,
    HeaderExtensions,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    unpack_remb_fci,
)
from aiortc.utils import random32

from mien_signaling.fanout import PacketisedFrame

logger = logging.getLogger(__name__)

#: Constrained baseline is what we send; a receiver that offers plain baseline alone can decode it too.
_H264_PROFILES = ("42e01f", "42001f")

_HOOKS = {
    "_run_rtp": ["self", "codec"],
    "_retransmit": ["self", "sequence_number"],
    "_send_keyframe": ["self"],
    "_handle_rtcp_packet": ["self", "packet"],
}
_CONSENT_HOOKS = ("connect", "query_consent")
_STARTED, _EXITED = "_RTCRtpSender__rtp_started", "_RTCRtpSender__rtp_exited"
_EXTENSIONS, _MID = "_RTCRtpSender__rtp_header_extensions_map", "_RTCRtpSender__mid"
_NTP, _TIMESTAMP = "_RTCRtpSender__ntp_timestamp", "_RTCRtpSender__rtp_timestamp"
_PACKETS, _BYTES = "_RTCRtpSender__packet_count", "_RTCRtpSender__octet_count"
_HISTORY = "_RTCRtpSender__rtp_history"
_LSR, _LSR_TIME = "_RTCRtpSender__lsr", "_RTCRtpSender__lsr_time"
_FIELDS = (_STARTED, _EXITED, _EXTENSIONS, _MID, _NTP, _TIMESTAMP, _PACKETS, _BYTES, _HISTORY, _LSR, _LSR_TIME)

#: A longer round trip is none: the clock was set between a sender's report and the answer to it.
_LONGEST_RTT_S = 10.0

# RTP's fixed header (RFC 3550, section 5.1) and that of its extension.
_HEADER, _EXTENSION_HEADER = Struct("!BBHLL"), Struct("!HH")
_VERSION, _HAS_EXTENSION, _MARKER = 0x80, 0x10, 0x80


class HookPointMissing(RuntimeError):
    """This aiortc is not built as passthrough needs it; the text names what is missing."""


def check_hook_points(sender: type = RTCRtpSender) -> None:
    """Raise HookPointMissing unless aiortc's sender has every part that is replaced here, as it is expected."""
    for name, expected in _HOOKS.items():
        method = getattr(sender, name, None)
        if method is None or list(inspect.signature(method).parameters) != expected:
            raise HookPointMissing(f"aiortc's RTCRtpSender has no {name}({', '.join(expected)})")
    for name in _FIELDS:
        if name not in RTCRtpSender.__init__.__code__.co_names:
            raise HookPointMissing(f"aiortc's RTCRtpSender has no field {name}")
    for name in _CONSENT_HOOKS:
        if not inspect.iscoroutinefunction(getattr(Connection, name, None)):
            raise HookPointMissing(f"aioice's Connection has no {name}()")
    if "_closing" not in Connection.__init__.__code__.co_names:
        raise HookPointMissing("aioice's Connection has no field _closing")
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


class _PacketSender:
    """Sends one viewer's packets, and remembers the last of them for when they get lost."""

    def __init__(self, sender: RTCRtpSender, next_frame: Callable[[], Awaitable[PacketisedFrame]]) -> None:
        self._sender = sender
        self._next_frame = next_frame
        self._aiortc_retransmit = sender._retransmit
        self._payload_type = 0
        # sequence number, timestamp, marker and payload, at the sequence number modulo the length
        self._recent: list[tuple[int, int, int, bytes] | None] = [None] * RTP_HISTORY_SIZE

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """What aiortc starts once DTLS is up, and cancels."""
        sender = self._sender
        self._payload_type = codec.payloadType
        getattr(sender, _STARTED).set()
        try:
            await self._send_frames()
        except (asyncio.CancelledError, ConnectionError):
            pass
        except Exception:  # a task's boundary, and RTCRtpSender.stop() waits for what follows
            logger.exception("a viewer's sender failed")
        sender.track.stop()
        sender.replaceTrack(None)
        getattr(sender, _EXITED).set()

    async def _send_frames(self) -> None:
        sender, recent = self._sender, self._recent
        extensions_map, mid = getattr(sender, _EXTENSIONS), getattr(sender, _MID)
        send, ssrc = sender.transport._send_rtp, sender._ssrc
        sequence, origin = random_sequence_number(), random32()
        packets = octets = 0
        while True:
            frame = await self._next_frame()
            timestamp = (origin + frame.pts_90k) & 0xFFFFFFFF
            # All packets of a frame leave together, so one send time holds for all.
            ntp = clock.current_ntp_time()
            profile, values = extensions_map.set(HeaderExtensions(abs_send_time=(ntp >> 14) & 0x00FFFFFF, mid=mid))
            extension = _EXTENSION_HEADER.pack(profile, len(values) >> 2) + values if values else b""
            first = _VERSION | _HAS_EXTENSION if values else _VERSION
            last = len(frame.payloads) - 1
            for index, payload in enumerate(frame.payloads):
                marker = index == last
                second = self._payload_type | (_MARKER if marker else 0)
                recent[sequence % RTP_HISTORY_SIZE] = (sequence, timestamp, int(marker), payload)
                await send(_HEADER.pack(first, second, sequence, timestamp, ssrc) + extension + payload)
                sequence = (sequence + 1) & 0xFFFF
                octets += len(payload)
            packets += len(frame.payloads)
            # For sender reports, which aiortc goes on making.
            for name, value in ((_NTP, ntp), (_TIMESTAMP, timestamp), (_PACKETS, packets), (_BYTES, octets)):
                setattr(sender, name, value)

    async def retransmit(self, sequence_number: int) -> None:
        """Answer a NACK as aiortc does, RTX included, with a packet made for the occasion."""
        found = self._recent[sequence_number % RTP_HISTORY_SIZE]
        if found is None or found[0] != sequence_number:
            return
        _, timestamp, marker, payload = found
        packet = RtpPacket(self._payload_type, marker, sequence_number, timestamp, self._sender._ssrc, payload)
        packet.extensions.abs_send_time = (clock.current_ntp_time() >> 14) & 0x00FFFFFF
        packet.extensions.mid = getattr(self._sender, _MID)
        getattr(self._sender, _HISTORY)[sequence_number % RTP_HISTORY_SIZE] = packet
        await self._aiortc_retransmit(sequence_number)


def install(
    sender: RTCRtpSender, next_frame: Callable[[], Awaitable[PacketisedFrame]], feedback: ReceiverFeedback
) -> None:
    """Make `sender` send what `next_frame` gives and tell `feedback` what comes back. Call before it starts."""
    handle_rtcp_packet = sender._handle_rtcp_packet
    packets = _PacketSender(sender, next_frame)

    async def handle_rtcp(packet: AnyRtcpPacket) -> None:
        await handle_rtcp_packet(packet)
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == sender._ssrc:
                    feedback.on_report(report.fraction_lost / 256, _round_trip_s(sender, report))
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            feedback.on_nack(len(packet.lost))
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bitrate_bps, ssrcs = unpack_remb_fci(packet.fci)
            except ValueError:
                return  # some other application's message, or a broken one
            if sender._ssrc in ssrcs:
                feedback.on_remb(bitrate_bps)

    sender._run_rtp = packets.run
    sender._retransmit = packets.retransmit
    sender._send_keyframe = feedback.on_keyframe_wanted
    sender._handle_rtcp_packet = handle_rtcp


def _round_trip_s(sender: RTCRtpSender, report: RtcpReceiverInfo) -> float | None:
    """What a receiver report says of the round trip (RFC 3550, section 6.4.1); None where it answers no report of ours.

    aiortc's own figure is smoothed, so that a clock that was set stays in it for a minute.
    """
    if not report.dlsr or report.lsr != getattr(sender, _LSR):
        return None
    round_trip_s = time.time() - getattr(sender, _LSR_TIME) - report.dlsr / 65536
    return round_trip_s if 0 <= round_trip_s <= _LONGEST_RTT_S else None


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
