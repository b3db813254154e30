"""Checks motion packets of version 1 without numpy, for services that forward them. The layout: motion_v1.py. Pure."""

from __future__ import annotations

import math
import struct

from mien_shared.wire.contract import (
    KNOWN_FLAGS,
    MAX_COORDINATE,
    MAX_JACOBIAN,
    MotionFlags,
    NotFinite,
    OutOfRange,
    PacketHeader,
    UnknownFlags,
    WrongLength,
)

VERSION = 1
PACKET_BYTES = 128
HEADER = struct.Struct("<BBHI")

_FLAGS = [MotionFlags(value) for value in range(KNOWN_FLAGS + 1)]
#: x, y and four Jacobian entries of each keypoint.
_ROW_LIMITS = [MAX_COORDINATE] * 2 + [MAX_JACOBIAN] * 4
_LIMITS = _ROW_LIMITS * ((PACKET_BYTES - HEADER.size) // 2 // len(_ROW_LIMITS))
_VALUES = struct.Struct(f"<{len(_LIMITS)}e")

# Without their signs, half floats have the same order as their bits (IEEE 754, section 3.4); infinities and NaNs are
# above all others. So one addition to all of them at once finds every packet that may hold a wrong value: a value above
# its limit carries into its sign.
_LIMIT_BITS = struct.unpack(f"<{len(_LIMITS)}H", struct.pack(f"<{len(_LIMITS)}e", *_LIMITS))
_SIGN, _UNSIGNED = 0x8000, 0x7FFF


def _lanes(*values: int) -> int:
    return int.from_bytes(struct.pack(f"<{len(values)}H", *values), "little")


_UNSIGNED_LANES = _lanes(*[_UNSIGNED] * len(_LIMITS))
_SIGN_LANES = _lanes(*[_SIGN] * len(_LIMITS))
_HEADROOM_LANES = _lanes(*[_UNSIGNED - bits for bits in _LIMIT_BITS])


def check(data: bytes) -> PacketHeader:
    """The header of a valid packet. Raises a MotionPacketError that names the first flaw."""
    if len(data) != PACKET_BYTES:
        raise WrongLength(f"a motion packet of version 1 has {PACKET_BYTES} bytes, not {len(data)}")
    if data[1] & ~KNOWN_FLAGS:
        raise UnknownFlags(f"motion packet flags {data[1]:#04x} are not known")
    lanes = int.from_bytes(data[HEADER.size :], "little") & _UNSIGNED_LANES
    if lanes + _HEADROOM_LANES & _SIGN_LANES:
        _refuse(_VALUES.unpack_from(data, HEADER.size))
    version, flags, sequence, capture_ms = HEADER.unpack_from(data)
    return PacketHeader(version, _FLAGS[flags], sequence, capture_ms)


def _refuse(values: tuple[float, ...]) -> None:
    """Raises the error that names the flaw of these values."""
    if not all(map(math.isfinite, values)):
        raise NotFinite("a motion packet holds a value that is not finite")
    if any(abs(value) > limit for value, limit in zip(values, _LIMITS, strict=True) if limit == MAX_COORDINATE):
        raise OutOfRange(f"a keypoint lies outside [-{MAX_COORDINATE:g}, {MAX_COORDINATE:g}]")
    raise OutOfRange(f"a Jacobian entry lies outside [-{MAX_JACOBIAN:g}, {MAX_JACOBIAN:g}]")
