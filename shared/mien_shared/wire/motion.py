"""Motion packets of every version. One packet is one frame of a speaker's face.

The first byte of a packet names its version, and each version's layout is
in a separate module (`motion_v1.py`). Pure: bytes in, values out, no clock and no socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mien_shared.keypoints import Keypoints
from mien_shared.wire import motion_v1
from mien_shared.wire.checks import MAX_PACKET_BYTES, check, sequence_distance, version_of
from mien_shared.wire.contract import (
    MAX_COORDINATE,
    MAX_JACOBIAN,
    MotionFlags,
    MotionPacketError,
    NotFinite,
    OutOfRange,
    PacketHeader,
    PacketLayout,
    UnknownFlags,
    UnknownVersion,
    WrongLength,
)

__all__ = [
    "MAX_COORDINATE",
    "MAX_JACOBIAN",
    "MAX_PACKET_BYTES",
    "VERSIONS",
    "MotionFlags",
    "MotionPacket",
    "MotionPacketError",
    "NotFinite",
    "OutOfRange",
    "PacketHeader",
    "UnknownFlags",
    "UnknownVersion",
    "WrongLength",
    "check",
    "choose_subprotocol",
    "sequence_distance",
    "subprotocol",
]

_LAYOUTS: dict[int, PacketLayout] = {motion_v1.VERSION: motion_v1}

#: The versions that receivers read, the newest first.
VERSIONS = tuple(sorted(_LAYOUTS, reverse=True))


@dataclass(frozen=True, slots=True)
class MotionPacket:
    """One frame of motion in the form that is sent.

    sequence: 0..65535, wraps. capture_ms: the sender's clock in milliseconds, 32 bits, wraps.
    """

    sequence: int
    capture_ms: int
    keypoints: Keypoints
    flags: MotionFlags = field(default=MotionFlags.NONE)

    @property
    def may_be_dropped(self) -> bool:
        """See PacketHeader.may_be_dropped."""
        return self.header(motion_v1.VERSION).may_be_dropped

    def header(self, version: int) -> PacketHeader:
        return PacketHeader(version, self.flags, self.sequence, self.capture_ms)

    def pack(self) -> bytes:
        """The bytes on the wire, in version 1."""
        return motion_v1.pack(self.header(motion_v1.VERSION), self.keypoints)

    @classmethod
    def unpack(cls, data: bytes) -> MotionPacket:
        """Read one packet of any version. Raises a MotionPacketError that names the flaw."""
        header, keypoints = _LAYOUTS[version_of(data)].unpack(data)
        return cls(header.sequence, header.capture_ms, keypoints, header.flags)


def subprotocol(version: int) -> str:
    """The WebSocket subprotocol for packets of a version."""
    return f"mien.v{version}"


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """The subprotocol of the newest version that a sender offers, None if receivers read none of them."""
    names = set(offered)
    return next((name for name in map(subprotocol, VERSIONS) if name in names), None)
