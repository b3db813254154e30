"""Sends finished RTP payloads through aiortc. All uses of aiortc's private parts, and a check of them, are here.

aiortc 1.16 sends video in `RTCRtpSender._run_rtp`. It reads a picture from the track, encodes it for one viewer and
builds an object for each packet. This module replaces the method on the instance: a frame that was packetised once is
sent to each viewer, and each packet costs only a header and SRTP (a third less CPU than through `_next_encoded_frame`,
see `mien bench fanout`). `_retransmit` is replaced because sent packets are stored in another form. `_send_keyframe`
and `_handle_rtcp_packet` are replaced to receive PLI, FIR, REMB, NACK and receiver reports, which aiortc would only
use for its own encoder. The version is pinned below 1.17 (pyproject.toml).
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

#: We send constrained baseline. A receiver that offers only plain baseline can decode it too.
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

#: A longer round trip is not real: the clock was set between a sender report and the answer to it.
_LONGEST_RTT_S = 10.0

# RTP's fixed header (RFC 3550, section 5.1) and the header of its extension.
_HEADER, _EXTENSION_HEADER = Struct("!BBHLL"), Struct("!HH")
_VERSION, _HAS_EXTENSION, _MARKER = 0x80, 0x10, 0x80


class HookPointMissing(RuntimeError):
    """The installed aiortc lacks a part that passthrough needs; the text names the part."""


def check_hook_points(sender: type = RTCRtpSender) -> None:
    """Raise HookPointMissing unless aiortc and aioice have every private part that this module uses."""
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
    """Takes the reports of a viewer's receiver about the stream."""

    def on_keyframe_wanted(self) -> None:
        """The receiver sent PLI or FIR."""

    def on_nack(self, packets: int) -> None:
        """The receiver asked for this many packets again. aiortc sends them."""

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        """The receiver sent a report: the share lost since the last one, 0 to 1, and the round trip if it is known."""

    def on_remb(self, bitrate_bps: int) -> None:
        """The receiver sent its estimate of the available bitrate."""


class PassthroughTrack(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Represents the video in SDP and keeps the sender running. No picture is read from it."""

    kind = "video"

    async def recv(self) -> None:
        raise MediaStreamError("a passthrough track holds no pictures")


def h264_preferences() -> list[RTCRtpCodecCapability]:
    """Only H.264 and retransmission. Set them before setRemoteDescription, or aiortc answers with VP8."""
    capabilities = RTCRtpSender.getCapabilities("video").codecs
    h264 = [
        codec
        for profile in _H264_PROFILES
        for codec in capabilities
        if codec.mimeType == "video/H264" and codec.parameters.get("profile-level-id") == profile
    ]
    return h264 + [codec for codec in capabilities if codec.mimeType == "video/rtx"]


class _PacketSender:
    """Sends one viewer's packets and keeps the last ones for retransmission."""

    def __init__(self, sender: RTCRtpSender, next_frame: Callable[[], Awaitable[PacketisedFrame]]) -> None:
        self._sender = sender
        self._next_frame = next_frame
        self._aiortc_retransmit = sender._retransmit
        self._payload_type = 0
        # sequence number, timestamp, marker and payload; the index is the sequence number modulo the length
        self._recent: list[tuple[int, int, int, bytes] | None] = [None] * RTP_HISTORY_SIZE

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """Replaces `_run_rtp`: aiortc starts it when DTLS is ready, and cancels it."""
        sender = self._sender
        self._payload_type = codec.payloadType
        getattr(sender, _STARTED).set()
        try:
            await self._send_frames()
        except (asyncio.CancelledError, ConnectionError):
            pass
        except Exception:  # a task's boundary; RTCRtpSender.stop() waits for the lines below
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
            # All packets of a frame are sent together, so they share one send time.
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
            # aiortc still makes the sender reports and reads these values.
            for name, value in ((_NTP, ntp), (_TIMESTAMP, timestamp), (_PACKETS, packets), (_BYTES, octets)):
                setattr(sender, name, value)

    async def retransmit(self, sequence_number: int) -> None:
        """Answer a NACK through aiortc, RTX included, with a packet object built only now."""
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
    """Make `sender` send the frames of `next_frame` and report to `feedback`. Call it before the sender starts."""
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
                return  # a message of another application, or a broken one
            if sender._ssrc in ssrcs:
                feedback.on_remb(bitrate_bps)

    sender._run_rtp = packets.run
    sender._retransmit = packets.retransmit
    sender._send_keyframe = feedback.on_keyframe_wanted
    sender._handle_rtcp_packet = handle_rtcp


def _round_trip_s(sender: RTCRtpSender, report: RtcpReceiverInfo) -> float | None:
    """The round trip from a receiver report (RFC 3550, section 6.4.1), None if it does not answer our last report.

    aiortc's own figure is smoothed: after the clock is set, it is wrong for a minute.
    """
    if not report.dlsr or report.lsr != getattr(sender, _LSR):
        return None
    round_trip_s = time.time() - getattr(sender, _LSR_TIME) - report.dlsr / 65536
    return round_trip_s if 0 <= round_trip_s <= _LONGEST_RTT_S else None


def end_consent_checks_with(peer: RTCPeerConnection) -> None:
    """Prevent endless consent checks of a connection that is closed just when ICE completes.

    In aioice 0.13, `connect` may wake up after `close` has finished. It then starts the consent task, which is never
    cancelled. Call this after setRemoteDescription, when all transports exist and none has started.
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
