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

import numpy as np

from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.contract import PacketHeader
from mien_shared.wire.motion_v1_check import HEADER, PACKET_BYTES, VERSION, check

__all__ = ["PACKET_BYTES", "VERSION", "check", "pack", "unpack"]


def pack(header: PacketHeader, keypoints: Keypoints) -> bytes:
    """The 128 bytes on the wire. FP16 keeps about three decimal digits."""
    return (
        HEADER.pack(VERSION, header.flags, header.sequence & 0xFFFF, header.capture_ms & 0xFFFF_FFFF)
        + keypoints.rows().astype("<f2").tobytes()
    )


def unpack(data: bytes) -> tuple[PacketHeader, Keypoints]:
    """The header and the motion. Raises a MotionPacketError that names the first flaw."""
    header = check(data)
    rows = np.frombuffer(data, "<f2", offset=HEADER.size).astype(np.float32).reshape(NUM_KEYPOINTS, 6)
    return header, Keypoints(rows[:, :2].copy(), rows[:, 2:].reshape(NUM_KEYPOINTS, 2, 2))
