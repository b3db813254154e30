"""Fuzzes motion packets: all readers give the same verdict, and an accepted packet gives finite keypoints."""

from __future__ import annotations

import random
import struct

import numpy as np
from fuzz.harness import Target, main

from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket, MotionPacketError, PacketHeader
from mien_shared.wire.motion import check as check_packet
from mien_shared.wire.motion_v1 import PACKET_BYTES
from mien_shared.wire.packet_filter import PacketFilter, PacketVerdict

_REST = Keypoints.at_rest()
_UPLINK = PacketFilter(0.0)


def check(data: bytes) -> None:
    header: PacketHeader | None = None
    flaw: str | None = None
    try:
        header = check_packet(data)
    except MotionPacketError as error:
        flaw = error.reason
    # The filter keeps state for its whole connection. It gets every input, at a rate that it allows.
    verdict = _UPLINK.packet(data, _UPLINK.now_s + 0.03)
    reason: str | None = None
    try:
        packet = MotionPacket.unpack(data)
    except MotionPacketError as error:
        reason = error.reason
    assert flaw == reason
    if reason is not None:
        assert verdict == reason
        return
    assert header is not None and header == packet.header(data[0])
    assert verdict in {PacketVerdict.ACCEPTED, PacketVerdict.DUPLICATE, PacketVerdict.LATE}
    assert len(data) == PACKET_BYTES and packet.pack()[:8] == data[:8]
    moved = packet.keypoints.applied_to(_REST)
    assert np.isfinite(moved.points).all() and np.isfinite(moved.jacobians).all()


def _seeds() -> list[bytes]:
    chance = random.Random(1)
    made = []
    for sequence in range(16):
        motion = Keypoints.at_rest()
        motion.points[:] = np.array([[chance.uniform(-1, 1) for _ in range(2)] for _ in range(10)])
        made.append(MotionPacket(sequence * 4096, sequence, motion, MotionFlags(sequence % 8)).pack())
    return made


_HALVES = [struct.pack("<e", value) for value in (0.0, 4.0, -4.004, 8.0, 8.01, 65504.0, 6e-8, float("nan"))]
TARGET = Target("packet", check, _seeds(), [*_HALVES, b"\x00\x7c", b"\x00\xfc", b"\x01\x00", b"\x01\x07"])

if __name__ == "__main__":
    main(TARGET)
