"""Motion packet version 1: 128 bytes, little-endian. Nothing outside `wire` knows this layout.

| offset | type | field |
|---|---|---|
| 0 | u8 | version = 1 |
| 1 | u8 | flags, see MotionFlags |
| 2 | u16 | sequence, wraps |
| 4 | u32 | capture_ms, wraps |
| 8 | 10 x 6 f16 | x, y, j00, j01, j10, j11 of each keypoint |

Pure: bytes in, values out.
"""

from __future__ import annotations

import struct

import numpy as np

from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.contract import (
    KNOWN_FLAGS,
    MAX_COORDINATE,
    MAX_JACOBIAN,
    MotionFlags,
    MotionPacketError,
    NotFinite,
    OutOfRange,
    PacketHeader,
    UnknownFlags,
    WrongLength,
)

VERSION = 1
PACKET_BYTES = 128

_HEADER = struct.Struct("<BBHI")
_FLAGS = [MotionFlags(value) for value in range(KNOWN_FLAGS + 1)]
_SIGN_CLEARED = np.uint16(0x7FFF)
# Without their signs, half floats have the same order as their bits (IEEE 754, section 3.4); infinities and NaNs are
# above all others. So one integer comparison finds every packet that may hold a wrong value.
_LIMIT_BITS = np.tile(np.array([MAX_COORDINATE] * 2 + [MAX_JACOBIAN] * 4, "<f2").view("<u2"), NUM_KEYPOINTS)


def pack(header: PacketHeader, keypoints: Keypoints) -> bytes:
    """The 128 bytes on the wire. FP16 keeps about three decimal digits."""
    return (
        _HEADER.pack(VERSION, header.flags, header.sequence & 0xFFFF, header.capture_ms & 0xFFFF_FFFF)
        + keypoints.rows().astype("<f2").tobytes()
    )


def check(data: bytes) -> PacketHeader:
    """The header of a valid packet. Takes a third of the time of `unpack`. Raises a MotionPacketError."""
    if not _is_valid(data):
        raise _flaw(data)
    return _header(data)


def unpack(data: bytes) -> tuple[PacketHeader, Keypoints]:
    """The header and the motion. Raises a MotionPacketError that names the first flaw."""
    if not _is_valid(data):
        raise _flaw(data)
    rows = np.frombuffer(data, "<f2", offset=_HEADER.size).astype(np.float32).reshape(NUM_KEYPOINTS, 6)
    return _header(data), Keypoints(rows[:, :2].copy(), rows[:, 2:].reshape(NUM_KEYPOINTS, 2, 2))


def _is_valid(data: bytes) -> bool:
    if len(data) != PACKET_BYTES or data[1] & ~KNOWN_FLAGS:
        return False
    bits = np.frombuffer(data, "<u2", offset=_HEADER.size) & _SIGN_CLEARED
    return not (bits > _LIMIT_BITS).any()


def _flaw(data: bytes) -> MotionPacketError:
    """The error that names the first flaw of a packet that is not valid."""
    if len(data) != PACKET_BYTES:
        return WrongLength(f"a motion packet of version 1 has {PACKET_BYTES} bytes, not {len(data)}")
    if data[1] & ~KNOWN_FLAGS:
        return UnknownFlags(f"motion packet flags {data[1]:#04x} are not known")
    rows = np.frombuffer(data, "<f2", offset=_HEADER.size).reshape(NUM_KEYPOINTS, 6)
    if not np.isfinite(rows).all():
        return NotFinite("a motion packet holds a value that is not finite")
    if np.abs(rows[:, :2]).max() > MAX_COORDINATE:
        return OutOfRange(f"a keypoint lies outside [-{MAX_COORDINATE:g}, {MAX_COORDINATE:g}]")
    return OutOfRange(f"a Jacobian entry lies outside [-{MAX_JACOBIAN:g}, {MAX_JACOBIAN:g}]")


def _header(data: bytes) -> PacketHeader:
    version, flags, sequence, capture_ms = _HEADER.unpack_from(data)
    return PacketHeader(version, _FLAGS[flags], sequence, capture_ms)
