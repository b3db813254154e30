"""What a speaker's face shows: the newest packet, and a default motion eased in when packets stay away."""

from __future__ import annotations

import numpy as np
import pytest

from mien_generator.motion.speaker import STALL_S, SpeakerMotion, UnusableMotion
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

SOURCE = Keypoints(
    np.array(
        [
            (-0.3, -0.45), (0.3, -0.45), (-0.28, -0.25), (0.28, -0.25), (0, 0.02),
            (0, 0.22), (0, 0.32), (0, 0.6), (-0.55, 0.1), (0.55, 0.1),
        ],
        np.float32,
    ),
    np.tile(np.eye(2, dtype=np.float32), (10, 1, 1)),
)  # fmt: skip
LIPS = (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP)


def speaking(mouth: float, sequence: int = 0, flags: MotionFlags = MotionFlags.NONE) -> MotionPacket:
    """A packet whose lower lip hangs `mouth` below its place."""
    motion = Keypoints.at_rest()
    motion.points[FaceKeypoint.LOWER_LIP, 1] = mouth
    return MotionPacket(sequence, 0, motion, flags)


def mouth_of(motion: Keypoints) -> float:
    return float(motion.points[FaceKeypoint.LOWER_LIP, 1] - motion.points[FaceKeypoint.UPPER_LIP, 1])


def in_conversation() -> SpeakerMotion:
    """A speaker whose packets have come for a second; the last, at 1.0 s, holds the mouth half open."""
    speaker = SpeakerMotion(SOURCE, 0.0)
    for number in range(31):
        speaker.push(speaking(0.2, number), number / 30)
        speaker.at(number / 30)
    return speaker


def test_before_the_first_packet_the_face_is_idle() -> None:
    shown = SpeakerMotion(SOURCE, 10.0).at(10.0)
    assert shown.idle
    assert shown.packet is None
    np.testing.assert_allclose(shown.relative.points, 0, atol=1e-6)


def test_a_live_face_shows_the_newest_packet_as_it_is() -> None:
    speaker = in_conversation()
    speaker.push(speaking(0.1, 31), 1.03)
    speaker.push(speaking(-0.05, 32), 1.04)
    shown = speaker.at(1.05)
    assert not shown.idle
    assert shown.packet is not None
    assert shown.packet.sequence == 32
    assert mouth_of(shown.relative) == pytest.approx(-0.05)


def test_a_packet_that_is_late_by_less_than_a_stall_changes_nothing() -> None:
    speaker = in_conversation()
    shown = speaker.at(1.0 + STALL_S - 0.01)
    assert not shown.idle
    assert mouth_of(shown.relative) == pytest.approx(0.2)


def test_a_stalled_uplink_closes_the_mouth_and_never_jumps() -> None:
    speaker = in_conversation()
    mouths = []
    for tick in range(60):
        shown = speaker.at(1.0 + tick / 30)
        mouths.append(mouth_of(shown.relative))
    assert mouths[0] == pytest.approx(0.2)
    assert abs(mouths[-1]) < 1e-3
    steps = np.abs(np.diff(mouths))
    assert steps.max() < 0.04  # 0.2 in 0.4 s is eased over twelve frames
    assert (steps[8:16] > 0).all()


def test_a_stalled_face_goes_on_living() -> None:
    speaker = in_conversation()
    shown = [speaker.at(1.0 + tick / 30).relative for tick in range(360)][60:]
    heads = np.array([motion.points[FaceKeypoint.NOSE] for motion in shown])
    assert np.ptp(heads, axis=0).min() > 0.002
    lids = np.array([motion.jacobians[FaceKeypoint.LEFT_EYE, 1, 1] for motion in shown])
    assert lids.min() < 0.3, "no blink in ten seconds"
    assert np.median(lids) > 0.95
    assert max(abs(mouth_of(motion)) for motion in shown) < 0.01


def test_a_speaker_who_comes_back_is_eased_in() -> None:
    speaker = in_conversation()
    for tick in range(60):
        speaker.at(1.0 + tick / 30)
    mouths = []
    for tick in range(10):
        now_s = 3.0 + tick / 30
        speaker.push(speaking(0.3, tick), now_s)
        shown = speaker.at(now_s)
        assert not shown.idle
        mouths.append(mouth_of(shown.relative))
    assert mouths[0] == pytest.approx(0.0, abs=0.01)
    assert mouths[-1] == pytest.approx(0.3)
    assert np.abs(np.diff(mouths)).max() < 0.12


def test_another_initial_frame_is_eased_over() -> None:
    speaker = in_conversation()
    speaker.push(speaking(-0.2, 40, MotionFlags.NEW_INITIAL_FRAME), 1.03)
    assert mouth_of(speaker.at(1.03).relative) == pytest.approx(0.2)
    speaker.push(speaking(-0.2, 45), 1.2)
    assert mouth_of(speaker.at(1.2).relative) == pytest.approx(-0.2)


def test_absolute_keypoints_move_the_face_from_where_they_began() -> None:
    speaker = SpeakerMotion(SOURCE, 0.0)
    began = Keypoints(SOURCE.points + np.float32(0.1), SOURCE.jacobians * 2)
    later = Keypoints(began.points + np.float32(0.05), began.jacobians)
    speaker.push(MotionPacket(0, 0, began, MotionFlags.ABSOLUTE), 0.0)
    for number in range(1, 10):
        speaker.push(MotionPacket(number, 0, later, MotionFlags.ABSOLUTE), number / 30)
        shown = speaker.at(number / 30)
    np.testing.assert_allclose(shown.relative.points, 0.05, atol=1e-6)
    np.testing.assert_allclose(shown.relative.jacobians, Keypoints.at_rest().jacobians, atol=1e-6)


def test_an_initial_frame_that_cannot_be_inverted_is_refused_and_the_next_begins_anew() -> None:
    speaker = in_conversation()
    flat = Keypoints(SOURCE.points, np.zeros((10, 2, 2), np.float32))
    with pytest.raises(UnusableMotion, match=r"^the initial frame's Jacobians have no inverse$"):
        speaker.push(MotionPacket(31, 0, flat, MotionFlags.ABSOLUTE), 1.03)
    assert mouth_of(speaker.at(1.03).relative) == pytest.approx(0.2), "the motion before it is kept"
    speaker.push(MotionPacket(32, 0, SOURCE, MotionFlags.ABSOLUTE), 1.06)
    assert mouth_of(speaker.at(1.06).relative) == pytest.approx(0.0)


def test_relative_jacobians_beyond_any_face_are_refused() -> None:
    speaker = SpeakerMotion(SOURCE, 0.0)
    thin = Keypoints(SOURCE.points, SOURCE.jacobians * np.float32(0.01))
    speaker.push(MotionPacket(0, 0, thin, MotionFlags.ABSOLUTE), 0.0)
    with pytest.raises(UnusableMotion, match=r"^a relative Jacobian entry lies outside \[-8, 8\]$"):
        speaker.push(MotionPacket(1, 0, SOURCE, MotionFlags.ABSOLUTE), 0.03)
