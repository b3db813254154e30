"""The parts that all versions of a motion packet share: header, flags, limits and errors. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # it needs numpy, which a service that only forwards motion does without
    from mien_shared.keypoints import Keypoints

#: The largest absolute value of a coordinate. The crop spans [-1, 1]; a face may be half outside it.
MAX_COORDINATE = 4.0
#: The largest Jacobian entry. A neighbourhood eight times its size at rest does not occur on a face.
MAX_JACOBIAN = 8.0


class MotionFlags(IntFlag):
    """Properties of a packet's motion."""

    NONE = 0
    ABSOLUTE = 1  # the keypoints are positions in the crop, not relative to the initial frame
    DEFAULT_MOTION = 2  # the sender's judgement replaced this frame
    NEW_INITIAL_FRAME = 4  # this frame and those after it are relative to another initial frame


#: A plain int: the complement of an IntFlag covers only the flags that have names.
KNOWN_FLAGS = int(MotionFlags.ABSOLUTE | MotionFlags.DEFAULT_MOTION | MotionFlags.NEW_INITIAL_FRAME)


# Arithmetic on members of an IntFlag takes several times as long as on plain ints, and this runs for every packet.
_NEW_INITIAL_FRAME = int(MotionFlags.NEW_INITIAL_FRAME)


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """The part of a packet that a receiver reads before it decodes the motion.

    sequence: 0..65535, wraps. capture_ms: the sender's clock in milliseconds, 32 bits, wraps.
    """

    version: int
    flags: MotionFlags
    sequence: int
    capture_ms: int

    @property
    def may_be_dropped(self) -> bool:
        """Whether a newer packet may replace this one. Later packets depend on a packet with a new initial frame."""
        return not self.flags.value & _NEW_INITIAL_FRAME


class MotionPacketError(ValueError):
    """The bytes are not a motion packet. `reason` is the metric label that counts it."""

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


class PacketLayout(Protocol):
    """The layout of one version: a module with these functions."""

    def pack(self, header: PacketHeader, keypoints: Keypoints) -> bytes:
        """The bytes on the wire."""

    def check(self, data: bytes) -> PacketHeader:
        """The header of a valid packet, without its motion. Raises a MotionPacketError."""

    def unpack(self, data: bytes) -> tuple[PacketHeader, Keypoints]:
        """The header and the motion. Raises a MotionPacketError that names the first flaw."""
