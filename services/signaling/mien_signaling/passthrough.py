"""Sends finished RTP payloads of video through aiortc, with a check of the private parts of aiortc that this needs.
(voice_passthrough.py and speaker_transport.py use others; ice.py has those of aioice.)

aiortc 1.16 sends video in `RTCRtpSender._run_rtp`. It reads a picture from the track, encodes it for one viewer and
builds an object for each packet. This module replaces the method on the instance: a frame that was packetised once is
sent to each viewer, and each packet costs only a header and SRTP (a third less CPU than through `_next_encoded_frame`,
see `mien bench fanout`). `_send_keyframe` and `_handle_rtcp_packet` are replaced to receive PLI, FIR, REMB, NACK and
receiver reports. aiortc would use the first ones only for its own encoder, and would answer every NACK at once.
`receive` is replaced so that no offer can start a decoder. The version is pinned below 1.17 (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from struct import Struct
from typing import NamedTuple, Protocol

from aiortc import MediaStreamTrack, RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver, clock
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters, RTCRtpReceiveParameters
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    HeaderExtensions,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)
from aiortc.utils import random32

from mien_shared.clock import Clock
from mien_signaling.aiortc_parts import (
    BYTES,
    EXITED,
    EXTENSIONS,
    FIELDS,
    LSR,
    LSR_TIME,
    MID,
    NTP,
    PACKETS,
    STARTED,
    TIMESTAMP,
    HookPointMissing,
    has_time,
)
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.h264_format import H264Format
from mien_signaling.retransmission import HISTORY_PACKETS, Ignored, Retransmissions, first_of, pause_s, wire_bytes
from mien_signaling.rtp_packet import ntp_of

logger = logging.getLogger(__name__)

#: We send constrained baseline. A receiver that offers only plain baseline can decode it too.
_H264_PROFILES = ("42e01f", "42001f")

__all__ = ["HookPointMissing", "PassthroughTrack", "check_hook_points", "h264_preferences", "install"]

_HOOKS = {
    "_run_rtp": ["self", "codec"],
    "_send_rtcp": ["self", "packets"],
    "_send_keyframe": ["self"],
    "_handle_rtcp_packet": ["self", "packet"],
}
_RECEIVER_HOOKS = {"receive": ["self", "parameters"]}
#: A longer round trip is not real: the clock was set between a sender report and the answer to it.
_LONGEST_RTT_S = 10.0

# RTP's fixed header (RFC 3550, section 5.1), the header of its extension, and that of RTX (RFC 4588, section 4).
_HEADER, _EXTENSION_HEADER, _RTX_HEADER = Struct("!BBHLL"), Struct("!HH"), Struct("!H")
_VERSION, _HAS_EXTENSION, _MARKER = 0x80, 0x10, 0x80


def check_hook_points(sender: type = RTCRtpSender, receiver: type = RTCRtpReceiver) -> None:
    """Raise HookPointMissing unless aiortc has every private part that this module uses."""
    for kind, owner, hooks in (("Sender", sender, _HOOKS), ("Receiver", receiver, _RECEIVER_HOOKS)):
        for name, expected in hooks.items():
            method = getattr(owner, name, None)
            if method is None or list(inspect.signature(method).parameters) != expected:
                raise HookPointMissing(f"aiortc's RTCRtp{kind} has no {name}({', '.join(expected)})")
    for name in FIELDS:
        if name not in RTCRtpSender.__init__.__code__.co_names:
            raise HookPointMissing(f"aiortc's RTCRtpSender has no field {name}")
    for kind, owner in (("Sender", sender), ("Receiver", receiver)):
        if "__slots__" in vars(owner):
            raise HookPointMissing(f"aiortc's RTCRtp{kind} does not let an instance replace its methods")


class ReceiverFeedback(Protocol):
    """Takes the reports of a viewer's receiver about the stream."""

    def on_keyframe_wanted(self) -> None:
        """The receiver sent PLI or FIR."""

    def on_nack(self, packets: int) -> None:
        """The receiver asked for this many packets again."""

    def on_nack_ignored(self, reason: Ignored, packets: int) -> None:
        """This many of them are not sent again."""

    def on_sent_again(self) -> None:
        """One of these packets was sent again."""

    @property
    def stream_bps(self) -> float:
        """The rate of the stream that the receiver gets, bits per second; 0 while it is not known."""

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        """The receiver sent a report: the share lost since the last one, 0 to 1, and the round trip if it is known."""

    def on_remb(self, bitrate_bps: int) -> None:
        """The receiver sent its estimate of the available bitrate."""


class PassthroughTrack(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Represents video or voice in SDP and keeps the sender running. Nothing is read from it."""

    kind = "video"

    def __init__(self, kind: str = "video") -> None:
        super().__init__()
        self.kind = kind

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


class _SentPacket(NamedTuple):  # made for every packet of every viewer: a dataclass takes twice as long
    sequence: int
    timestamp: int
    marker: int  # the bit in its place
    payload: bytes


class _PacketSender:
    """Sends one viewer's packets, and those again that it has lost."""

    def __init__(
        self,
        sender: RTCRtpSender,
        video_format: H264Format,
        next_frame: Callable[[], Awaitable[PacketisedFrame]],
        feedback: ReceiverFeedback,
        clock: Clock,
        by_capture: bool,
    ) -> None:
        self._sender = sender
        self._by_capture = by_capture
        self._format = video_format
        self._next_frame = next_frame
        self._feedback = feedback
        self._clock = clock
        # The index is the sequence number modulo the length.
        self._recent: list[_SentPacket | None] = [None] * HISTORY_PACKETS
        self._again = Retransmissions()
        self._again_wanted = asyncio.Event()
        self._rtx_sequence = random_sequence_number()

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """Replaces `_run_rtp`: aiortc starts it when DTLS is ready, and cancels it."""
        sender = self._sender
        getattr(sender, STARTED).set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_frames())
                group.create_task(self._send_again())
        except* (asyncio.CancelledError, ConnectionError):
            pass
        except* Exception:  # a task's boundary; RTCRtpSender.stop() waits for the lines below
            logger.exception("a viewer's sender failed")
        finally:
            sender.track.stop()
            sender.replaceTrack(None)
            getattr(sender, EXITED).set()

    async def _send_frames(self) -> None:
        sender, recent = self._sender, self._recent
        send, ssrc, payload_type = sender.transport._send_rtp, sender._ssrc, self._format.payload_type
        sequence, origin = random_sequence_number(), random32()
        packets = octets = 0
        while True:
            frame = await self._next_frame()
            timestamp = (origin + frame.pts_90k) & 0xFFFFFFFF
            # All packets of a frame are sent together, so they share one send time.
            ntp = clock.current_ntp_time()
            first, extension = self._extension(ntp)
            last = len(frame.payloads) - 1
            for index, payload in enumerate(frame.payloads):
                marker = _MARKER if index == last else 0
                recent[sequence % HISTORY_PACKETS] = _SentPacket(sequence, timestamp, marker, payload)
                await send(_HEADER.pack(first, payload_type | marker, sequence, timestamp, ssrc) + extension + payload)
                sequence = (sequence + 1) & 0xFFFF
                octets += len(payload)
            packets += len(frame.payloads)
            # aiortc still makes the sender reports and reads these values.
            setattr(sender, PACKETS, packets)
            setattr(sender, BYTES, octets)
            if not self._by_capture:
                setattr(sender, NTP, ntp)
                setattr(sender, TIMESTAMP, timestamp)
            elif frame.capture_s is not None:
                setattr(sender, NTP, ntp_of(frame.capture_s))
                setattr(sender, TIMESTAMP, timestamp)

    def _extension(self, ntp: int) -> tuple[int, bytes]:
        """The first byte of the RTP header, and the header's extension."""
        sender = self._sender
        values = HeaderExtensions(abs_send_time=(ntp >> 14) & 0x00FFFFFF, mid=getattr(sender, MID))
        profile, packed = getattr(sender, EXTENSIONS).set(values)
        if not packed:
            return _VERSION, b""
        return _VERSION | _HAS_EXTENSION, _EXTENSION_HEADER.pack(profile, len(packed) >> 2) + packed

    def nacked(self, lost: Sequence[int]) -> None:
        """Queue the packets that the viewer asks for, within its limits."""
        now_s, stream_bps = self._clock.monotonic_s(), self._feedback.stream_bps
        considered = first_of(lost)
        ignored = Counter({Ignored.UNKNOWN: len(lost) - len(considered)})
        for sequence in considered:
            packet = self._sent(sequence)
            reason = (
                Ignored.UNKNOWN
                if packet is None
                else self._again.request(sequence, wire_bytes(packet.payload), stream_bps, now_s)
            )
            if reason is not None:
                ignored[reason] += 1
        for reason, packets in ignored.items():
            if packets:
                self._feedback.on_nack_ignored(reason, packets)
        self._again_wanted.set()

    def on_rtt(self, rtt_s: float) -> None:
        self._again.on_rtt(rtt_s)

    async def _send_again(self) -> None:
        while True:
            sequence = self._again.next(self._clock.monotonic_s())
            if sequence is None:
                self._again_wanted.clear()
                await self._again_wanted.wait()
            elif (packet := self._sent(sequence)) is not None:
                await self._sender.transport._send_rtp(self._repeated(packet))
                self._feedback.on_sent_again()
                await self._clock.sleep(pause_s(wire_bytes(packet.payload), self._feedback.stream_bps))
            else:
                self._feedback.on_nack_ignored(Ignored.UNKNOWN, 1)  # newer packets have replaced it meanwhile

    def _sent(self, sequence: int) -> _SentPacket | None:
        packet = self._recent[sequence % HISTORY_PACKETS]
        return packet if packet is not None and packet.sequence == sequence else None

    def _repeated(self, packet: _SentPacket) -> bytes:
        """The packet as RTX (RFC 4588) where the viewer takes it, otherwise as it was."""
        first, extension = self._extension(clock.current_ntp_time())
        if self._format.rtx_payload_type is None:
            second = self._format.payload_type | packet.marker
            header = _HEADER.pack(first, second, packet.sequence, packet.timestamp, self._sender._ssrc)
            return header + extension + packet.payload
        second = self._format.rtx_payload_type | packet.marker
        header = _HEADER.pack(first, second, self._rtx_sequence, packet.timestamp, self._sender._rtx_ssrc)
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        return header + extension + _RTX_HEADER.pack(packet.sequence) + packet.payload


def install(
    transceiver: RTCRtpTransceiver,
    video_format: H264Format,
    next_frame: Callable[[], Awaitable[PacketisedFrame]],
    feedback: ReceiverFeedback,
    clock: Clock,
    by_capture: bool = False,
) -> None:
    """Make a transceiver send the frames of `next_frame`, report to `feedback`, and receive nothing.

    video_format: what was negotiated; aiortc's own payload types are not used. by_capture: sender reports name the time
    at which a frame's motion was recorded, as lips and voice need it, instead of the time at which it was sent. Call it
    before the connection starts.
    """
    sender = transceiver.sender
    handle_rtcp_packet = sender._handle_rtcp_packet
    packets = _PacketSender(sender, video_format, next_frame, feedback, clock, by_capture)

    async def handle_rtcp(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            feedback.on_nack(len(packet.lost))
            packets.nacked(packet.lost)
            return
        await handle_rtcp_packet(packet)
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == sender._ssrc:
                    rtt_s = _round_trip_s(sender, report)
                    feedback.on_report(report.fraction_lost / 256, rtt_s)
                    if rtt_s is not None:
                        packets.on_rtt(rtt_s)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bitrate_bps, ssrcs = unpack_remb_fci(packet.fci)
            except ValueError:
                return  # a message of another application, or a broken one
            if sender._ssrc in ssrcs:
                feedback.on_remb(bitrate_bps)

    sender._run_rtp = packets.run
    sender._send_keyframe = feedback.on_keyframe_wanted
    sender._handle_rtcp_packet = handle_rtcp
    if by_capture:
        report_no_time_before_it_is_known(sender)
    transceiver.receiver.receive = receive_nothing


def report_no_time_before_it_is_known(sender: RTCRtpSender) -> None:
    """Replaces `_send_rtcp`: a report that names a wrong time takes a receiver ten seconds to get over."""
    send_rtcp = sender._send_rtcp

    async def send(packets: list[AnyRtcpPacket]) -> None:
        if has_time(sender) or not any(isinstance(packet, RtcpSrPacket) for packet in packets):
            await send_rtcp(packets)

    sender._send_rtcp = send


async def receive_nothing(parameters: RTCRtpReceiveParameters) -> None:
    """Replaces `receive`, which starts a decoder's thread. The reduced offer never asks for it; this makes sure."""


def _round_trip_s(sender: RTCRtpSender, report: RtcpReceiverInfo) -> float | None:
    """The round trip from a receiver report (RFC 3550, section 6.4.1), None if it does not answer our last report.

    aiortc's own figure is smoothed: after the clock is set, it is wrong for a minute.
    """
    if not report.dlsr or report.lsr != getattr(sender, LSR):
        return None
    round_trip_s = time.time() - getattr(sender, LSR_TIME) - report.dlsr / 65536
    return round_trip_s if 0 <= round_trip_s <= _LONGEST_RTT_S else None
