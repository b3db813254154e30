"""Checks motion packets of every version, and compares sequence numbers: what a service needs that only forwards them.

It does without numpy, which signaling's image does not have. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from mien_shared.wire import motion_v1_check
from mien_shared.wire.contract import PacketHeader, UnknownVersion, WrongLength

_CHECKS: dict[int, Callable[[bytes], PacketHeader]] = {motion_v1_check.VERSION: motion_v1_check.check}

#: The longest packet of any version.
MAX_PACKET_BYTES = motion_v1_check.PACKET_BYTES


def check(data: bytes) -> PacketHeader:
    """The header of a valid packet. Raises a MotionPacketError that names the flaw."""
    return _CHECKS[version_of(data)](data)


def version_of(data: bytes) -> int:
    """The version of a packet, one that is known. Raises WrongLength or UnknownVersion."""
    if not data:
        raise WrongLength("a motion packet has at least one byte, not 0")
    if data[0] not in _CHECKS:
        known = " and ".join(str(version) for version in sorted(_CHECKS))
        raise UnknownVersion(f"motion packet version {data[0]} is not known, only {known}")
    return data[0]


def sequence_distance(newer: int, older: int) -> int:
    """How far `newer` is ahead of `older` on the 16-bit circle, -32768..32767 (RFC 1982 arithmetic)."""
    return ((newer - older + 0x8000) & 0xFFFF) - 0x8000
