"""H.264's byte stream: NAL units, start codes, emulation prevention (ITU-T H.264, 7.3.1, 7.4.1 and Annex B). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum

START_CODE = b"\0\0\0\1"
_SHORT_START_CODE = b"\0\0\1"
#: Two zeros before a byte of 0 to 3, which may itself begin the next two zeros.
_NEEDS_PREVENTION = re.compile(rb"\0\0(?=[\0-\3])")


class NalType(IntEnum):
    """nal_unit_type, table 7-1; only the types that constrained baseline uses here."""

    SLICE = 1
    IDR_SLICE = 5
    SEI = 6
    SPS = 7
    PPS = 8


def nal_type(unit: bytes) -> int:
    """The type of a NAL unit without start code."""
    return unit[0] & 0x1F


def nal_units(access_unit: bytes) -> Iterator[tuple[int, bytes]]:
    """Each NAL unit of an Annex-B access unit: the offset of its start code, and the unit without start code."""
    at = access_unit.find(_SHORT_START_CODE)
    while at >= 0:
        following = access_unit.find(_SHORT_START_CODE, at + 3)
        unit = access_unit[at + 3 : following if following >= 0 else len(access_unit)].rstrip(b"\0")
        if unit:
            # A zero before the three bytes belongs to the start code (B.1.1, zero_byte).
            yield (at - 1 if at > 0 and access_unit[at - 1] == 0 else at), unit
        at = following


def is_picture(unit: bytes) -> bool:
    """Whether a NAL unit carries a slice (VCL)."""
    return NalType.SLICE <= nal_type(unit) <= NalType.IDR_SLICE


def escape(rbsp: bytes) -> bytes:
    """A NAL unit's payload with emulation prevention, so that it contains no start code (7.4.1.1)."""
    return _NEEDS_PREVENTION.sub(b"\0\0\3", rbsp)


def unescape(payload: bytes) -> bytes:
    """The reverse of `escape`."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)
