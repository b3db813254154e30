"""The landmark tool's stream: the protocol, and the packets for successive frames."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mien_landmarks.geometry import GROUPS, Array, mean_face
from mien_landmarks.serve import FORGET_MS, HEADER, NO_FACE, SETTLING_MS, LiveMotion, ProtocolError, read_question
from mien_shared.keypoints import EYES, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket, UnknownVersion

#: The mean face in a camera picture of 640x480.
FACE: Array = mean_face() * 150 + (320, 240)


def blinking() -> Array:
    landmarks = FACE.copy()
    for eye in EYES:
        ring = list(GROUPS[eye].landmarks)
        landmarks[ring, 1] = landmarks[ring, 1].mean()
    return landmarks


class TestProtocol:
    def test_reads_pictures_until_the_end(self) -> None:
        pixels = bytes(range(2 * 3 * 3))
        source = io.BytesIO(HEADER.pack(2, 3, 4_000_000_000) + pixels)
        question = read_question(source)
        assert question is not None
        rgb, capture_ms = question
        assert rgb.shape == (3, 2, 3)
        assert rgb.tobytes() == pixels
        assert capture_ms == 4_000_000_000
        assert read_question(source) is None

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (HEADER.pack(2, 2, 0)[:5], "the input ends within a header"),
            (HEADER.pack(2, 2, 0) + bytes(11), "the input ends within a picture of 2x2"),
            (HEADER.pack(0, 2, 0), "a picture must have pixels; this one is 0x2"),
        ],
    )
    def test_refuses_an_invalid_question(self, data: bytes, complaint: str) -> None:
        with pytest.raises(ProtocolError, match=complaint):
            read_question(io.BytesIO(data))

    def test_no_face_can_not_be_taken_for_a_packet(self) -> None:
        with pytest.raises(UnknownVersion):
            MotionPacket.unpack(NO_FACE)


class TestLiveMotion:
    def test_first_frame_is_the_initial_one(self) -> None:
        packet = LiveMotion().packet(FACE, 5000)
        assert packet.flags == MotionFlags.NEW_INITIAL_FRAME
        assert packet.capture_ms == 5000
        np.testing.assert_allclose(packet.keypoints.points, 0, atol=1e-6)
        np.testing.assert_allclose(packet.keypoints.jacobians, Keypoints.at_rest().jacobians, atol=1e-6)

    def test_a_better_initial_frame_replaces_a_blink(self) -> None:
        live = LiveMotion()
        live.packet(blinking(), 0)
        packets = [live.packet(FACE, 33 * (i + 1)) for i in range(20)]
        assert packets[0].flags == MotionFlags.NEW_INITIAL_FRAME
        assert packets[-1].flags == MotionFlags.NONE
        later = live.packet(FACE, SETTLING_MS + 500)
        np.testing.assert_allclose(later.keypoints.jacobians, Keypoints.at_rest().jacobians, atol=0.35)

    def test_every_packet_can_be_read_whatever_the_initial_frame(self) -> None:
        live = LiveMotion()
        packets = [live.packet(blinking(), 100 * i) for i in range(25)]
        packets += [live.packet(FACE, 2500 + 33 * i) for i in range(30)]
        assert [MotionPacket.unpack(packet.pack()).sequence for packet in packets] == list(range(55))
        wide = packets[-1].keypoints.jacobians[EYES[0]]
        assert np.linalg.svd(wide, compute_uv=False).max() == pytest.approx(3.0, abs=0.01)

    def test_nothing_replaces_it_after_two_seconds(self) -> None:
        live = LiveMotion()
        packets = [live.packet(blinking(), 100 * i) for i in range(30)]
        packets.append(live.packet(FACE, 3000))
        assert [p.flags for p in packets[1:]] == [MotionFlags.NONE] * 30

    def test_a_move_shows_and_the_crop_follows_slowly(self) -> None:
        live = LiveMotion(absolute=True)
        before = live.packet(FACE, 0)
        for i in range(1, 31):
            moved = live.packet(FACE + np.array([30, 0]), 33 * i)
        assert moved.flags == MotionFlags.ABSOLUTE
        shift = (moved.keypoints.points - before.keypoints.points)[:, 0]
        assert (shift > 0.1).all()
        for i in range(31, 31 + 30 * 60):
            settled = live.packet(FACE + np.array([30, 0]), 33 * i)
        np.testing.assert_allclose(settled.keypoints.points, before.keypoints.points, atol=0.01)

    def test_unsmoothed_every_frame_stands_for_itself(self) -> None:
        smoothed, unsmoothed = LiveMotion(absolute=True), LiveMotion(absolute=True, smoothed=False)
        for live in (smoothed, unsmoothed):
            live.packet(FACE, 0)
        shut = unsmoothed.packet(blinking(), 33).keypoints.jacobians[EYES[0], 1, 1]
        assert shut == pytest.approx(0.1, abs=0.02)
        assert smoothed.packet(blinking(), 33).keypoints.jacobians[EYES[0], 1, 1] > shut + 0.05

    def test_after_a_second_without_a_face_all_begins_anew(self) -> None:
        live = LiveMotion()
        live.packet(FACE, 0)
        packet = live.packet(FACE + np.array([100, 50]), FORGET_MS + 1)
        assert packet.flags == MotionFlags.NEW_INITIAL_FRAME
        assert packet.sequence == 1
        np.testing.assert_allclose(packet.keypoints.points, 0, atol=1e-6)
