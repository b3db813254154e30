"""H.264 as RTP payloads (RFC 6184, packetization-mode 1). Each frame is packetised once for all its viewers."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from struct import pack

from mien_shared.media.annexb import nal_units

#: With RTP header and extensions, SRTP tag, UDP and IPv6 about 1,290 bytes: 1,500 have room for TURN or a tunnel.
MAX_PAYLOAD_BYTES = 1200

_STAP_A, _FU_A = 24, 28
_TYPE, _NRI, _FORBIDDEN_AND_NRI = 0x1F, 0x60, 0xE0
_FU_START, _FU_END = 0x80, 0x40


class NotAnnexB(ValueError):
    """The frame does not begin with a start code; it may be in AVCC format."""


def units_of(annex_b: bytes) -> list[bytes]:
    """The NAL units of an Annex-B access unit, without start codes. Raises NotAnnexB."""
    found = list(nal_units(annex_b))
    if not found or annex_b[: found[0][0]].strip(b"\0"):
        raise NotAnnexB("the frame does not begin with an Annex-B start code")
    return [unit for _, unit in found]


def packetise(annex_b: bytes, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> list[bytes]:
    """The RTP payloads of one access unit, in order. The last one is for the packet with the marker bit.

    Consecutive units that fit together become one STAP-A. A unit that fits alone is sent as it is. A longer unit is
    split into FU-As of even length.
    """
    payloads: list[bytes] = []
    gathered: list[bytes] = []
    gathered_bytes = 1
    for unit in units_of(annex_b):
        if gathered and gathered_bytes + 2 + len(unit) > max_payload_bytes:
            payloads.append(_aggregate(gathered))
            gathered, gathered_bytes = [], 1
        if len(unit) > max_payload_bytes:
            payloads += _fragments(unit, max_payload_bytes)
        else:
            gathered.append(unit)
            gathered_bytes += 2 + len(unit)
    if gathered:
        payloads.append(_aggregate(gathered))
    return payloads


def _aggregate(units: list[bytes]) -> bytes:
    """One single NAL unit packet, or a STAP-A with the highest NRI of its units (RFC 6184, 5.7.1)."""
    if len(units) == 1:
        return units[0]
    importance = max(unit[0] & _NRI for unit in units)
    return b"".join([bytes([importance | _STAP_A]), *(pack("!H", len(unit)) + unit for unit in units)])


def _fragments(unit: bytes, max_payload_bytes: int) -> list[bytes]:
    """FU-A packets (RFC 6184, 5.8)."""
    indicator, kind = unit[0] & _FORBIDDEN_AND_NRI | _FU_A, unit[0] & _TYPE
    body = unit[1:]
    count = ceil(len(body) / (max_payload_bytes - 2))
    ends = [len(body) * part // count for part in range(count + 1)]
    fragments = []
    for part, (start, end) in enumerate(pairwise(ends)):
        position = (_FU_START if part == 0 else 0) | (_FU_END if part == count - 1 else 0)
        fragments.append(bytes([indicator, position | kind]) + body[start:end])
    return fragments
