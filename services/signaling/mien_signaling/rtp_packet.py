"""Reads what a speaker sends: RTP packets, and the sender reports in RTCP. Pure: bytes in, values out.

aiortc's own parser is not used for a speaker. It reads header extensions with `struct.unpack`, whose errors it does not
catch: one packet with an extension of a wrong length ends the receive loop of the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

_HEADER, _EXTENSION = Struct("!BBHLL"), Struct("!HH")
_VERSION = 2
_ONE_BYTE, _TWO_BYTE_MASK, _TWO_BYTE = 0xBEDE, 0xFFF0, 0x1000

_SENDER_REPORT = 200
_RTCP_HEADER, _SENDER_INFO = Struct("!BBH"), Struct("!LLLL")
#: Seconds between 1900, the origin of NTP, and 1970.
_NTP_UNIX_S = 2_208_988_800
_ERA_S = 1 << 32


class BadRtp(ValueError):
    """The bytes are not an RTP packet."""


class RtpPacket(NamedTuple):
    """One packet. level: -dBov, 0 (loudest) to 127 (RFC 6464), None if it has no such extension."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    level: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class SenderReport:
    """One sender report (RFC 3550, section 6.4.1): at this Unix time, the stream had this RTP timestamp."""

    ssrc: int
    unix_s: float
    timestamp: int
    ntp_middle: int  # the middle 32 bits of its NTP time, which our receiver report returns


def parse_rtp(data: bytes, level_id: int | None) -> RtpPacket:
    """Read one packet (RFC 3550, section 5.1). level_id: of the audio-level extension. Raises BadRtp."""
    if len(data) < _HEADER.size:
        raise BadRtp("an RTP packet has at least 12 bytes")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != _VERSION:
        raise BadRtp("the RTP version is not 2")
    start, level = _HEADER.size + 4 * (first & 0x0F), None
    if first & 0x10:
        if len(data) < start + _EXTENSION.size:
            raise BadRtp("the header extension is cut short")
        profile, words = _EXTENSION.unpack_from(data, start)
        start += _EXTENSION.size
        if level_id is not None:
            level = _level(profile, data[start : start + 4 * words], level_id)
        start += 4 * words
    end = len(data) - (data[-1] if first & 0x20 else 0)
    if start > end or (first & 0x20 and data[-1] == 0):
        raise BadRtp("the header or the padding is longer than the packet")
    return RtpPacket(second & 0x7F, bool(second & 0x80), sequence, timestamp, ssrc, level, data[start:end])


def _level(profile: int, extension: bytes, level_id: int) -> int | None:
    """The audio level in a header extension of either form (RFC 8285, sections 4.2 and 4.3)."""
    is_long = profile & _TWO_BYTE_MASK == _TWO_BYTE
    if profile != _ONE_BYTE and not is_long:
        return None
    at = 0
    while at < len(extension):
        head = extension[at]
        if head == 0:  # padding
            at += 1
            continue
        if is_long:
            number, size, at = head, extension[at + 1] if at + 1 < len(extension) else 0, at + 2
        else:
            number, size, at = head >> 4, (head & 0x0F) + 1, at + 1
        if number == level_id and size >= 1 and at < len(extension):
            return extension[at] & 0x7F
        at += size
    return None


def sender_reports(data: bytes, now_unix_s: float) -> list[SenderReport]:
    """The sender reports of a compound RTCP packet; what cannot be read is left out.

    NTP's seconds wrap in 2036: the era is the one nearest to `now_unix_s`.
    """
    found, at = [], 0
    while at + _RTCP_HEADER.size <= len(data):
        first, kind, words = _RTCP_HEADER.unpack_from(data, at)
        end = at + 4 * (words + 1)
        if first >> 6 != _VERSION or end > len(data):
            break
        if kind == _SENDER_REPORT and end - at >= _RTCP_HEADER.size + _SENDER_INFO.size:
            ssrc, seconds, fraction, timestamp = _SENDER_INFO.unpack_from(data, at + _RTCP_HEADER.size)
            unix_s = seconds - _NTP_UNIX_S
            unix_s += _ERA_S * round((now_unix_s - unix_s) / _ERA_S)
            middle = (seconds & 0xFFFF) << 16 | fraction >> 16
            found.append(SenderReport(ssrc, unix_s + fraction / _ERA_S, timestamp, middle))
        at = end
    return found


def ntp_of(unix_s: float) -> int:
    """A Unix time as NTP's 64 bits."""
    return round((unix_s + _NTP_UNIX_S) * _ERA_S) & 0xFFFF_FFFF_FFFF_FFFF
