"""Decides which of a speaker's RTP packets are voice that viewers get. Pure: the time is an argument.

The packets come from a stranger who holds a session's token. They are never decoded, so a packet is judged by its form
alone: payload type, stream, size, order and rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from struct import pack

from mien_shared.bus.voice import MAX_VOICE_BYTES, VoicePacket
from mien_shared.wire.checks import sequence_distance
from mien_signaling.rtp_packet import BadRtp, RtpPacket, SenderReport, parse_rtp

VOICE_CLOCK_HZ = 48_000


class VoiceVerdict(StrEnum):
    """The result for one packet; its value is the metric label that counts it."""

    ACCEPTED = "accepted"
    MALFORMED = "malformed"
    PAYLOAD_TYPE = "payload_type"
    SSRC = "ssrc"  # a second stream beside the one that is live
    SIZE = "size"  # nothing in it, or more than Opus has in a frame
    DUPLICATE = "duplicate"
    LATE = "late"
    RATE = "rate"
    MUTED = "muted"  # a moderator or the participant itself has muted it; the connection decides that, not the filter


#: Opus in frames of 10 ms makes 100 packets a second. The burst covers a network stall.
MAX_PACKETS_PER_S, BURST_PACKETS = 150.0, 150.0
#: Reports of a speaker a second: real ones are one in five seconds.
MAX_REPORTS_PER_S, BURST_REPORTS = 10.0, 20.0
#: A duplicate is recognised this many packets back. An older packet counts as late.
WINDOW = 64
#: No network delays a packet this long (20 s): the speaker has restarted.
RESTART_DISTANCE = 1000
#: Another stream replaces one that is silent for this long. DTX sends at least one packet in 0.4 s.
SSRC_SILENCE_S = 1.0
#: A connection may have this many datagrams refused at once, and so many a second after that. More is abuse.
ALLOWED_REFUSALS, ALLOWED_REFUSALS_PER_S = 1000.0, 50.0

_MASK = (1 << WINDOW) - 1


@dataclass(slots=True)
class Allowance:
    """A token bucket: `burst` at once, and `per_s` on average."""

    per_s: float
    burst: float
    now_s: float
    _tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now_s: float) -> bool:
        """Take one; False if none is left."""
        self._tokens = min(self.burst, self._tokens + (now_s - self.now_s) * self.per_s)
        self.now_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(slots=True)
class CaptureTime:
    """Maps RTP timestamps to the speaker's clock, by the newest sender report of the stream."""

    _report: SenderReport | None = None

    def on_report(self, report: SenderReport) -> None:
        self._report = report

    def forget(self) -> None:
        self._report = None

    def unix_us(self, timestamp: int) -> int | None:
        """When the first sample of a packet was recorded, None before the first report."""
        if self._report is None:
            return None
        ticks = ((timestamp - self._report.timestamp + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        return round((self._report.unix_s + ticks / VOICE_CLOCK_HZ) * 1e6)


class VoiceFilter:
    """The filter of one connection. connection: six bytes that name it; runs are named after it."""

    def __init__(self, payload_type: int, level_id: int | None, connection: bytes, now_s: float) -> None:
        self._payload_type = payload_type
        self._level_id = level_id
        self._connection = connection
        self._packets = Allowance(MAX_PACKETS_PER_S, BURST_PACKETS, now_s)
        self._reports = Allowance(MAX_REPORTS_PER_S, BURST_REPORTS, now_s)
        self._capture = CaptureTime()
        self._runs = 0
        self._ssrc: int | None = None
        self._heard_s = now_s
        self._newest = 0
        self._seen = 0

    @property
    def ssrc(self) -> int | None:
        """The stream that is live, None before its first packet."""
        return self._ssrc

    def packet(self, data: bytes, now_s: float) -> tuple[VoiceVerdict, VoicePacket | None]:
        """Judge one RTP packet; gives the voice in it if it is accepted. now_s: monotonic seconds."""
        if not self._packets.take(now_s):
            return VoiceVerdict.RATE, None
        try:
            rtp = parse_rtp(data, self._level_id)
        except BadRtp:
            return VoiceVerdict.MALFORMED, None
        verdict = self._judge(rtp, now_s)
        return verdict, self._voice(rtp) if verdict is VoiceVerdict.ACCEPTED else None

    def report(self, report: SenderReport, now_s: float) -> bool:
        """Take a sender report; False if there are too many, or it is not of the live stream."""
        if not self._reports.take(now_s) or report.ssrc != self._ssrc:
            return False
        self._capture.on_report(report)
        return True

    def _judge(self, rtp: RtpPacket, now_s: float) -> VoiceVerdict:
        if rtp.payload_type != self._payload_type:
            return VoiceVerdict.PAYLOAD_TYPE
        if not 0 < len(rtp.payload) <= MAX_VOICE_BYTES:
            return VoiceVerdict.SIZE
        if rtp.ssrc != self._ssrc:
            if self._ssrc is not None and now_s - self._heard_s < SSRC_SILENCE_S:
                return VoiceVerdict.SSRC
            self._begin(rtp)
            self._ssrc = rtp.ssrc
            self._capture.forget()
        elif (verdict := self._in_order(rtp)) is not VoiceVerdict.ACCEPTED:
            return verdict
        self._heard_s = now_s
        return VoiceVerdict.ACCEPTED

    def _begin(self, rtp: RtpPacket) -> None:
        self._runs = (self._runs + 1) & 0xFFFF
        self._newest, self._seen = rtp.sequence, 1

    def _in_order(self, rtp: RtpPacket) -> VoiceVerdict:
        ahead = sequence_distance(rtp.sequence, self._newest)
        if abs(ahead) > RESTART_DISTANCE:
            self._begin(rtp)
        elif ahead > 0:
            self._seen = (self._seen << ahead | 1) & _MASK if ahead < WINDOW else 1
            self._newest = rtp.sequence
        elif -ahead >= WINDOW:
            return VoiceVerdict.LATE
        elif self._seen >> -ahead & 1:
            return VoiceVerdict.DUPLICATE
        else:
            self._seen |= 1 << -ahead
        return VoiceVerdict.ACCEPTED

    def _voice(self, rtp: RtpPacket) -> VoicePacket:
        run = self._connection + pack("!H", self._runs)
        capture_us = self._capture.unix_us(rtp.timestamp)
        return VoicePacket(run, rtp.sequence, rtp.timestamp, rtp.marker, rtp.level, capture_us, rtp.payload)
