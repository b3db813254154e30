"""The motion packet, version 1: bytes on the wire, named errors, and the motion it carries."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.motion import (
    MAX_COORDINATE,
    MAX_JACOBIAN,
    MAX_PACKET_BYTES,
    VERSIONS,
    MotionFlags,
    MotionPacket,
    MotionPacketError,
    NotFinite,
    OutOfRange,
    UnknownFlags,
    UnknownVersion,
    WrongLength,
    check,
    choose_subprotocol,
    sequence_distance,
    subprotocol,
)
from mien_shared.wire.motion_v1 import PACKET_BYTES

CAPTURED = Path(__file__).parent / "captured"

CAPTURED_LOWER_LIP = (0.035797119140625, 0.25244140625)

points = npst.arrays(np.float16, (NUM_KEYPOINTS, 2), elements=st.floats(-MAX_COORDINATE, MAX_COORDINATE, width=16))
jacobians = npst.arrays(np.float16, (NUM_KEYPOINTS, 2, 2), elements=st.floats(-MAX_JACOBIAN, MAX_JACOBIAN, width=16))
keypoints = st.builds(lambda p, j: Keypoints(p.astype(np.float32), j.astype(np.float32)), points, jacobians)
packets = st.builds(
    MotionPacket,
    sequence=st.integers(0, 0xFFFF),
    capture_ms=st.integers(0, 0xFFFFFFFF),
    keypoints=keypoints,
    flags=st.sampled_from([MotionFlags(value) for value in range(8)]),
)


def at_rest(sequence: int = 0) -> MotionPacket:
    return MotionPacket(sequence, 0, Keypoints.at_rest())


def outcome(data: bytes) -> tuple[str, MotionPacket | None]:
    try:
        return "ok", MotionPacket.unpack(data)
    except MotionPacketError as error:
        return error.reason, None


def is_taken(data: bytes) -> bool:
    try:
        check(data)
    except MotionPacketError:
        return False
    return True


@given(packets)
def test_what_is_packed_is_unpacked(packet: MotionPacket) -> None:
    assert MotionPacket.unpack(packet.pack()) == packet


@given(st.binary(max_size=300))
def test_any_bytes_are_a_packet_or_a_named_error(data: bytes) -> None:
    reason, packet = outcome(data)
    assert is_taken(data) == (reason == "ok")
    assert reason in {"ok", "length", "version", "flags", "not_finite", "range"}
    if packet is not None:
        assert np.isfinite(packet.keypoints.points).all()
        assert packet.pack()[:8] == data[:8]


@given(packets, st.integers(0, PACKET_BYTES - 1), st.integers(0, 255))
def test_a_damaged_byte_is_a_packet_or_a_named_error(packet: MotionPacket, at: int, value: int) -> None:
    data = bytearray(packet.pack())
    data[at] = value
    reason, damaged = outcome(bytes(data))
    assert is_taken(bytes(data)) == (reason == "ok")
    assert (reason == "ok") == (damaged is not None)
    assert reason != "length"


def test_the_layout_is_the_documented_one() -> None:
    rest = Keypoints.at_rest()
    rest.points[3] = (0.5, -0.25)
    data = MotionPacket(0x1234, 0x89ABCDEF, rest, MotionFlags.DEFAULT_MOTION).pack()
    assert len(data) == PACKET_BYTES == 8 + 120 == MAX_PACKET_BYTES
    assert data[:8] == bytes([1, 2, 0x34, 0x12, 0xEF, 0xCD, 0xAB, 0x89])
    assert struct.unpack_from("<6e", data, 8 + 3 * 12) == (0.5, -0.25, 1.0, 0.0, 0.0, 1.0)


def test_sequence_and_capture_time_wrap() -> None:
    packet = MotionPacket.unpack(MotionPacket(0x1_0001, 0x1_0000_0002, Keypoints.at_rest()).pack())
    assert (packet.sequence, packet.capture_ms) == (1, 2)


def test_a_captured_packet_reads_as_when_it_was_captured() -> None:
    data = (CAPTURED / "packet_v1.bin").read_bytes()
    packet = MotionPacket.unpack(data)
    assert (packet.sequence, packet.capture_ms, packet.flags) == (517, 17_233, MotionFlags.NONE)
    np.testing.assert_allclose(packet.keypoints.points[6], CAPTURED_LOWER_LIP, atol=1e-6)
    assert packet.pack() == data


@pytest.mark.parametrize("length", [1, 127, 129, 4096])
def test_wrong_length(length: int) -> None:
    with pytest.raises(WrongLength, match=rf"^a motion packet of version 1 has 128 bytes, not {length}$"):
        MotionPacket.unpack(b"\x01" + bytes(length - 1))


def test_no_bytes_are_no_packet() -> None:
    with pytest.raises(WrongLength, match=r"^a motion packet has at least one byte, not 0$"):
        MotionPacket.unpack(b"")


@given(packets)
def test_the_header_is_read_without_the_motion(packet: MotionPacket) -> None:
    header = check(packet.pack())
    assert header == packet.header(1)
    assert header.may_be_dropped == packet.may_be_dropped == (MotionFlags.NEW_INITIAL_FRAME not in packet.flags)


def test_every_version_has_a_subprotocol_and_the_newest_that_both_know_is_chosen() -> None:
    assert [subprotocol(version) for version in VERSIONS] == ["mien.v1"]
    assert choose_subprotocol(["bearer.x", "mien.v1", "mien.v99"]) == "mien.v1"
    assert choose_subprotocol(["bearer.x", "mien.v99"]) is None


@pytest.mark.parametrize("version", [0, 2, 255])
def test_unknown_version(version: int) -> None:
    with pytest.raises(UnknownVersion, match=rf"^motion packet version {version} is not known, only 1$"):
        MotionPacket.unpack(bytes([version]) + at_rest().pack()[1:])


def test_unknown_flags() -> None:
    data = at_rest().pack()
    with pytest.raises(UnknownFlags, match=r"^motion packet flags 0x09 are not known$"):
        MotionPacket.unpack(data[:1] + b"\x09" + data[2:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(value: float) -> None:
    data = bytearray(at_rest().pack())
    struct.pack_into("<e", data, PACKET_BYTES - 2, value)
    with pytest.raises(NotFinite, match=r"^a motion packet holds a value that is not finite$"):
        MotionPacket.unpack(bytes(data))


def test_a_keypoint_far_outside_the_crop() -> None:
    motion = Keypoints.at_rest()
    motion.points[0, 1] = -4.01
    with pytest.raises(OutOfRange, match=r"^a keypoint lies outside \[-4, 4\]$"):
        MotionPacket.unpack(MotionPacket(0, 0, motion).pack())


def test_a_jacobian_that_no_face_has() -> None:
    motion = Keypoints.at_rest()
    motion.jacobians[9, 1, 1] = 8.01
    with pytest.raises(OutOfRange, match=r"^a Jacobian entry lies outside \[-8, 8\]$"):
        MotionPacket.unpack(MotionPacket(0, 0, motion).pack())


@given(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF))
def test_sequence_distance_goes_round_the_circle(older: int, step: int) -> None:
    assert sequence_distance((older + step) & 0xFFFF, older) == step


def test_relative_motion_applied_to_its_own_initial_frame_gives_the_frame() -> None:
    random = np.random.default_rng(1)

    def face() -> Keypoints:
        noise = random.normal(scale=0.2, size=(NUM_KEYPOINTS, 2, 2))
        return Keypoints(
            random.uniform(-1, 1, (NUM_KEYPOINTS, 2)).astype(np.float32), (np.eye(2) + noise).astype(np.float32)
        )

    initial, later = face(), face()
    again = later.relative_to(initial).applied_to(initial)
    np.testing.assert_allclose(again.points, later.points, atol=1e-6)
    np.testing.assert_allclose(again.jacobians, later.jacobians, atol=1e-5)


def test_motion_at_rest_moves_nothing() -> None:
    source = Keypoints(
        np.full((NUM_KEYPOINTS, 2), 0.3, np.float32), np.tile(np.eye(2, dtype=np.float32) * 2, (10, 1, 1))
    )
    assert Keypoints.at_rest().applied_to(source) == source


def test_rows_are_the_order_of_the_wire() -> None:
    rows = np.arange(60, dtype=np.float32).reshape(10, 6) / 60
    motion = Keypoints.from_rows(rows)
    assert motion.jacobians[1, 0, 1] == rows[1, 3]
    np.testing.assert_array_equal(motion.rows(), rows)


def test_blending_goes_from_one_motion_to_the_other() -> None:
    still, moved = Keypoints.at_rest(), Keypoints(np.ones((10, 2), np.float32), np.zeros((10, 2, 2), np.float32))
    assert still.blended(moved, 0.0) == still
    assert still.blended(moved, 1.0) == moved
    np.testing.assert_allclose(still.blended(moved, 0.25).points, 0.25)
