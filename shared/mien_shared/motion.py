"""The motion packet, version 1, and the motion it carries.

One packet is one frame of a speaker's face: ten keypoints, each with the 2x2 Jacobian of its neighbourhood, as
FOMM defines them (Siarohin et al. 2019, section 3.1). Pure: bytes in, values out, no clock and no socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import ArrayLike, NDArray

VERSION = 1
NUM_KEYPOINTS = 10
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

FloatArray = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:  # noqa: PLW1641 - holds arrays, which are not hashable
    """Ten keypoints with their Jacobians.

    points: (10, 2) float32, x right, y down, the face crop spanning [-1, 1].
    jacobians: (10, 2, 2) float32, rows (j00 j01), (j10 j11).
    As relative motion (paper, section 3.3): points v_r - v_i, jacobians J_r J_i^-1; at rest zeros and unit matrices.
    """

    points: FloatArray
    jacobians: FloatArray

    @classmethod
    def at_rest(cls) -> Keypoints:
        """The relative motion that moves nothing."""
        return cls(
            np.zeros((NUM_KEYPOINTS, 2), np.float32),
            np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1)),
        )

    def __eq__(self, other: object) -> bool:  # arrays compare by element, which a dataclass's own __eq__ cannot use
        if not isinstance(other, Keypoints):
            return NotImplemented
        return np.array_equal(self.points, other.points) and np.array_equal(self.jacobians, other.jacobians)

    @classmethod
    def from_rows(cls, rows: ArrayLike) -> Keypoints:
        """From ten rows of x, y, j00, j01, j10, j11, the order of the wire."""
        values = np.asarray(rows, np.float32).reshape(NUM_KEYPOINTS, 6)
        return cls(values[:, :2].copy(), values[:, 2:].reshape(NUM_KEYPOINTS, 2, 2).copy())

    def rows(self) -> FloatArray:
        """(10, 6) float32: x, y, j00, j01, j10, j11, the order of the wire."""
        return np.concatenate([self.points, self.jacobians.reshape(NUM_KEYPOINTS, 4)], axis=1)

    def relative_to(self, initial: Keypoints) -> Keypoints:
        """This frame's motion since `initial`: (v - v_i, J J_i^-1).

        Raises np.linalg.LinAlgError if an initial Jacobian has no inverse.
        """
        return Keypoints(self.points - initial.points, self.jacobians @ np.linalg.inv(initial.jacobians))

    def applied_to(self, source: Keypoints) -> Keypoints:
        """This relative motion on an avatar's own keypoints: (v_s + dv, dJ J_s)."""
        return Keypoints(source.points + self.points, self.jacobians @ source.jacobians)

    def blended(self, other: Keypoints, amount: float) -> Keypoints:
        """Linear blend: 0 is self, 1 is `other`."""
        return Keypoints(
            (1 - amount) * self.points + np.float32(amount) * other.points,
            (1 - amount) * self.jacobians + np.float32(amount) * other.jacobians,
        )


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


class FaceKeypoint(IntEnum):
    """Which part of the face each keypoint of a landmark-built teacher follows; left and right are the picture's.

    A learned encoder finds keypoints of its own, in an order of its own.
    """

    LEFT_BROW = 0
    RIGHT_BROW = 1
    LEFT_EYE = 2
    RIGHT_EYE = 3
    NOSE = 4
    UPPER_LIP = 5
    LOWER_LIP = 6
    CHIN = 7
    LEFT_CHEEK = 8
    RIGHT_CHEEK = 9


EYES = (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE)
