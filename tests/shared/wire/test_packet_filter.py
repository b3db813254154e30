"""The packet filter: what it takes, why it drops, when it has had enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket, MotionPacketError, check
from mien_shared.wire.motion_v1 import PACKET_BYTES
from mien_shared.wire.packet_filter import (
    ABUSE_REJECTED,
    BURST_PACKETS,
    DUPLICATE_WINDOW,
    MAX_PACKETS_PER_S,
    RESTART_DISTANCE,
    RESTART_SILENCE_S,
    PacketFilter,
    PacketVerdict,
)

FRAME_S = 1 / 30


def packet(sequence: int, flags: MotionFlags = MotionFlags.NONE) -> bytes:
    return MotionPacket(sequence, 0, Keypoints.at_rest(), flags).pack()


def with_value(index: int, value: float) -> bytes:
    """A packet whose `index`th of 60 values is `value`."""
    data = bytearray(packet(0))
    data[8 + 2 * index : 10 + 2 * index] = np.array([value], "<f2").tobytes()
    return bytes(data)


def verdicts(sequences: list[int], step_s: float = FRAME_S) -> list[PacketVerdict]:
    uplink = PacketFilter(0.0)
    return [uplink.packet(packet(sequence), i * step_s) for i, sequence in enumerate(sequences)]


def test_takes_packets_in_order_with_gaps_and_across_the_wrap() -> None:
    assert verdicts([65533, 65535, 0, 1, 7]) == [PacketVerdict.ACCEPTED] * 5


def test_tells_duplicates_from_late_ones() -> None:
    assert verdicts([10, 12, 12, 10, 11, 11, 13]) == [
        PacketVerdict.ACCEPTED,
        PacketVerdict.ACCEPTED,
        PacketVerdict.DUPLICATE,
        PacketVerdict.DUPLICATE,
        PacketVerdict.LATE,
        PacketVerdict.DUPLICATE,
        PacketVerdict.ACCEPTED,
    ]


def test_a_duplicate_beyond_the_window_is_late() -> None:
    sequences = [0, *range(1, DUPLICATE_WINDOW + 1), 0]
    assert verdicts(sequences, step_s=0.01)[-1] is PacketVerdict.LATE


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", PacketVerdict.LENGTH),
        (packet(0)[:-1], PacketVerdict.LENGTH),
        (packet(0) + b"\0", PacketVerdict.LENGTH),
        (b"\x02" + packet(0)[1:], PacketVerdict.VERSION),
        (b"\x01\x08" + packet(0)[2:], PacketVerdict.FLAGS),
        (with_value(0, np.nan), PacketVerdict.NOT_FINITE),
        (with_value(59, -np.inf), PacketVerdict.NOT_FINITE),
        (with_value(0, 4.01), PacketVerdict.RANGE),
        (with_value(1, -5.0), PacketVerdict.RANGE),
        (with_value(2, 8.01), PacketVerdict.RANGE),
    ],
)
def test_names_what_is_wrong(data: bytes, verdict: PacketVerdict) -> None:
    uplink = PacketFilter(0.0)
    assert uplink.packet(data, 0.0) is verdict
    assert uplink.packet(packet(0), FRAME_S) is PacketVerdict.ACCEPTED, "one bad packet spoils nothing"
    assert not uplink.abusive


@pytest.mark.parametrize("value", [4.0, -4.0, 0.0, -0.0])
def test_takes_the_limits_themselves(value: float) -> None:
    assert checked(with_value(0, value)) is None


def checked(data: bytes) -> str | None:
    """Why `check` refuses a packet, None if it does not: then its header is the one that unpacking finds."""
    try:
        header = check(data)
    except MotionPacketError as error:
        return error.reason
    assert header == MotionPacket.unpack(data).header(data[0])
    return None


def unpacked(data: bytes) -> str | None:
    try:
        MotionPacket.unpack(data)
    except MotionPacketError as error:
        return error.reason
    return None


@given(st.binary(max_size=2 * PACKET_BYTES))
def test_any_bytes_are_judged_as_unpacking_judges_them(data: bytes) -> None:
    assert checked(data) == unpacked(data)


@given(
    st.integers(0, 59),
    st.integers(0, 0xFFFF),
    st.integers(0, 7),
)
def test_any_half_float_is_judged_as_unpacking_judges_it(index: int, bits: int, flags: int) -> None:
    data = bytearray(packet(0, MotionFlags(flags)))
    data[8 + 2 * index : 10 + 2 * index] = bits.to_bytes(2, "little")
    assert checked(bytes(data)) == unpacked(bytes(data))


@given(st.lists(st.integers(0, 0xFFFF), max_size=100))
def test_nothing_within_the_restart_distance_is_taken_twice_or_backwards(sequences: list[int]) -> None:
    uplink = PacketFilter(0.0)
    newest: int | None = None
    for i, sequence in enumerate(sequences):
        verdict = uplink.packet(packet(sequence), i * 0.01)
        behind = None if newest is None else (newest - sequence) & 0xFFFF
        if behind is not None and behind <= RESTART_DISTANCE:
            assert verdict in {PacketVerdict.LATE, PacketVerdict.DUPLICATE}
        else:
            assert verdict is PacketVerdict.ACCEPTED
            newest = sequence


def test_a_sequence_far_behind_is_a_new_beginning() -> None:
    far = RESTART_DISTANCE + 1
    assert verdicts([5000, 5000 - far, 5000 - far + 1]) == [PacketVerdict.ACCEPTED] * 3
    assert verdicts([5000, 5000 - RESTART_DISTANCE]) == [PacketVerdict.ACCEPTED, PacketVerdict.LATE]


def test_after_silence_a_late_sequence_is_a_new_beginning() -> None:
    uplink = PacketFilter(0.0)
    uplink.packet(packet(300), 0.0)
    assert uplink.packet(packet(0), RESTART_SILENCE_S - 0.01) is PacketVerdict.LATE
    assert uplink.packet(packet(0), RESTART_SILENCE_S) is PacketVerdict.ACCEPTED
    assert uplink.packet(packet(1), RESTART_SILENCE_S + FRAME_S) is PacketVerdict.ACCEPTED


def test_after_silence_a_packet_already_seen_needs_a_new_initial_frame() -> None:
    uplink = PacketFilter(0.0)
    uplink.packet(packet(3), 0.0)
    assert uplink.packet(packet(3), 1.0) is PacketVerdict.DUPLICATE
    assert uplink.packet(packet(3, MotionFlags.NEW_INITIAL_FRAME), 1.0) is PacketVerdict.ACCEPTED


def test_a_new_initial_frame_without_silence_is_no_excuse() -> None:
    uplink = PacketFilter(0.0)
    uplink.packet(packet(3), 0.0)
    assert uplink.packet(packet(2, MotionFlags.NEW_INITIAL_FRAME), FRAME_S) is PacketVerdict.LATE


def test_more_than_the_rate_is_dropped_and_the_rate_itself_is_not() -> None:
    uplink = PacketFilter(0.0)
    burst = [uplink.packet(packet(i), 0.0) for i in range(int(BURST_PACKETS) + 5)]
    assert burst == [PacketVerdict.ACCEPTED] * int(BURST_PACKETS) + [PacketVerdict.RATE] * 5
    steady = [uplink.packet(packet(1000 + i), (i + 1.01) / MAX_PACKETS_PER_S) for i in range(300)]
    assert set(steady) == {PacketVerdict.ACCEPTED}


def test_text_is_counted_as_such_and_is_no_packet() -> None:
    uplink = PacketFilter(0.0)
    assert uplink.text(0.0) is PacketVerdict.TEXT
    assert [uplink.text(0.0) for _ in range(int(BURST_PACKETS))][-1] is PacketVerdict.RATE


def test_sustained_abuse_is_seen_at_the_hundred_and_first_bad_packet() -> None:
    uplink = PacketFilter(0.0)
    for i in range(ABUSE_REJECTED):
        uplink.packet(b"?", i * FRAME_S)
        assert not uplink.abusive
    uplink.packet(b"?", ABUSE_REJECTED * FRAME_S)
    assert uplink.abusive


def test_as_many_good_packets_as_bad_are_no_abuse() -> None:
    uplink = PacketFilter(0.0)
    for i in range(2000):
        uplink.packet(packet(i) if i % 2 else b"?", i * FRAME_S)
        assert not uplink.abusive
