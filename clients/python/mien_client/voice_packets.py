"""The packets of a voice as they arrive at an aiortc receiver, before it decodes them: when each was recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket

logger = logging.getLogger(__name__)

VOICE_CLOCK_HZ = 48_000
#: From NTP's epoch, 1900, to that of Unix time (RFC 5905, section 6).
_NTP_UNIX_S = 2_208_988_800
#: Private fields of aiortc's receiver: what it subtracts from timestamps, and its buffer. A test checks that the pinned
#: version has them.
_MAPPER, _BUFFER = "_RTCRtpReceiver__timestamp_mapper", "_RTCRtpReceiver__jitter_buffer"
#: Three packets, 60 ms: what signaling expects of receivers when it brings voice and lips together. aiortc's own buffer
#: is 80 ms long.
_CAPACITY, _PREFETCH = 16, 3


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """20 ms of Opus as they came.

    sequence, timestamp: of RTP, at 48 kHz. level: dB below full scale, None if the packet has none.
    received_unix_s: when it arrived. captured_unix_s: when it was recorded, by the sender's clock; None until a sender
    report has told it.
    """

    payload: bytes
    sequence: int
    timestamp: int
    level: int | None
    received_unix_s: float
    captured_unix_s: float | None


class VoiceTap:
    """Tells of the packets of one receiver. tell: called with each; it must not block.

    aiortc passes what a peer sends to two methods of the receiver, which are replaced here. They are private; a test
    checks that the pinned version has them.
    """

    def __init__(self, receiver: RTCRtpReceiver, tell: Callable[[VoicePacket], None]) -> None:
        self._receiver = receiver
        self._tell = tell
        self._report: tuple[float, int] | None = None
        if hasattr(receiver, _BUFFER):
            setattr(receiver, _BUFFER, JitterBuffer(_CAPACITY, _PREFETCH))
        self._on_rtp = receiver._handle_rtp_packet
        self._on_rtcp = receiver._handle_rtcp_packet
        receiver._handle_rtp_packet = self._rtp
        receiver._handle_rtcp_packet = self._rtcp

    def timestamp_of(self, pts: int) -> int | None:
        """The RTP timestamp of a decoded sound, whose pts counts from the first one. None if aiortc does not tell."""
        origin = getattr(getattr(self._receiver, _MAPPER, None), "_origin", None)
        return None if origin is None else (origin + pts) % 2**32

    def captured_s(self, timestamp: int) -> float | None:
        """When this timestamp was recorded, Unix seconds, by the newest report of the sender."""
        if self._report is None:
            return None
        unix_s, reported = self._report
        ticks = (timestamp - reported + 2**31) % 2**32 - 2**31
        return unix_s + ticks / VOICE_CLOCK_HZ

    async def _rtp(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        try:
            if packet.payload:
                self._tell(self._told(packet))
        except Exception:  # it would end the receive loop of the whole connection
            logger.exception("a callback of a voice failed")
        await self._on_rtp(packet, arrival_time_ms=arrival_time_ms)

    def _told(self, packet: RtpPacket) -> VoicePacket:
        level = packet.extensions.audio_level
        captured_s = self.captured_s(packet.timestamp)
        return VoicePacket(
            packet.payload,
            packet.sequence_number,
            packet.timestamp,
            None if level is None else level[1],
            time.time(),
            captured_s,
        )

    async def _rtcp(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            unix_s = packet.sender_info.ntp_timestamp / 2**32 - _NTP_UNIX_S
            self._report = (unix_s, packet.sender_info.rtp_timestamp)
        await self._on_rtcp(packet)
