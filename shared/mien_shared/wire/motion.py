"""The motion packet, version 1, and the motion it carries.

One packet is one frame of a speaker's face: ten keypoints, each with the 2x2 Jacobian of its neighbourhood, as
FOMM defines them (Siarohin et al. 2019, section 3.1). Pure: bytes in, values out, no clock and no socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np

from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

VERSION = 1
PACKET_BYTES = 128
PAYLOAD_BYTES = 120

#: Farthest a keypoint may lie from the crop's centre (the crop spans [-1, 1]); a face half out of it is still a face.
MAX_COORDINATE = 4.0
#: Largest Jacobian entry: a neighbourhood eight times its size at rest is no face.
MAX_JACOBIAN = 8.0

_HEADER = struct.Struct("<BBHI")
_SIGNLESS = np.uint16(0x7FFF)
# Without their signs half floats order as their bits do (IEEE 754, section 3.4), infinities and NaNs above all others:
# one integer comparison finds every packet that may hold something wrong.
_LIMIT_BITS = np.tile(np.array([MAX_COORDINATE] * 2 + [MAX_JACOBIAN] * 4, "<f2").view("<u2"), NUM_KEYPOINTS)


class MotionFlags(IntFlag):
    """Byte 1 of the packet."""

    NONE = 0
    ABSOLUTE = 1  # keypoints in the crop, not relative to the initial frame
    DEFAULT_MOTION = 2  # the sender's quality gate replaced this frame
    NEW_INITIAL_FRAME = 4  # what follows is relative to another initial frame


#: A plain int: the complement of an IntFlag knows only the flags that have names.
_KNOWN_FLAGS = int(MotionFlags.ABSOLUTE | MotionFlags.DEFAULT_MOTION | MotionFlags.NEW_INITIAL_FRAME)


class MotionPacketError(ValueError):
    """A packet that is no motion packet of version 1; `reason` is the metric label it is counted under."""

    reason = "malformed"


class WrongLength(MotionPacketError):
    reason = "length"


class UnknownVersion(MotionPacketError):
    reason = "version"


class UnknownFlags(MotionPacketError):
    reason = "flags"


class NotFinite(MotionPacketError):
    reason = "not_finite"


class OutOfRange(MotionPacketError):
    reason = "range"


@dataclass(frozen=True, slots=True)
class MotionPacket:
    """One frame of motion as it travels.

    sequence: 0..65535, wraps. capture_ms: the sender's clock in milliseconds, 32 bits, wraps.
    """

    sequence: int
    capture_ms: int
    keypoints: Keypoints
    flags: MotionFlags = field(default=MotionFlags.NONE)

    def pack(self) -> bytes:
        """The 128 bytes on the wire, little-endian. FP16 keeps about three decimal digits."""
        return (
            _HEADER.pack(VERSION, self.flags, self.sequence & 0xFFFF, self.capture_ms & 0xFFFFFFFF)
            + self.keypoints.rows().astype("<f2").tobytes()
        )

    @classmethod
    def unpack(cls, data: bytes) -> MotionPacket:
        """Read one packet; raises a MotionPacketError naming what is wrong with it."""
        if len(data) != PACKET_BYTES:
            raise WrongLength(f"a motion packet has {PACKET_BYTES} bytes, not {len(data)}")
        version, flags, sequence, capture_ms = _HEADER.unpack_from(data)
        if version != VERSION:
            raise UnknownVersion(f"motion packet version {version} is not known, only {VERSION}")
        if flags & ~_KNOWN_FLAGS:
            raise UnknownFlags(f"motion packet flags {flags:#04x} are not known")
        values = np.frombuffer(data, "<f2", offset=_HEADER.size).astype(np.float32)
        if not np.isfinite(values).all():
            raise NotFinite("a motion packet holds a value that is not finite")
        keypoints = Keypoints.from_rows(values)
        if np.abs(keypoints.points).max() > MAX_COORDINATE:
            raise OutOfRange(f"a keypoint lies outside [-{MAX_COORDINATE:g}, {MAX_COORDINATE:g}]")
        if np.abs(keypoints.jacobians).max() > MAX_JACOBIAN:
            raise OutOfRange(f"a Jacobian entry lies outside [-{MAX_JACOBIAN:g}, {MAX_JACOBIAN:g}]")
        return cls(sequence, capture_ms, keypoints, MotionFlags(flags))


def is_valid(data: bytes) -> bool:
    """Whether MotionPacket.unpack takes these bytes, at a third of its cost: what a gateway asks of every packet."""
    if len(data) != PACKET_BYTES or data[0] != VERSION or data[1] & ~_KNOWN_FLAGS:
        return False
    bits = np.frombuffer(data, "<u2", offset=_HEADER.size) & _SIGNLESS
    return not (bits > _LIMIT_BITS).any()


def sequence_distance(newer: int, older: int) -> int:
    """How far `newer` is ahead of `older` on the 16-bit circle, -32768..32767 (RFC 1982 arithmetic)."""
    return ((newer - older + 0x8000) & 0xFFFF) - 0x8000
