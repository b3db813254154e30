"""The sender's judgement: eq. 2, the initial frame, and what viewers are sent in place of frames that are not fit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mien_encoder.judgement import (
    TAU,
    FrameVerdict,
    Judged,
    Judgement,
    JudgementPolicy,
    TimeRanBackwards,
    l2,
)
from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import EYES, FaceKeypoint, Keypoints
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
#: Another person: other proportions, a little to the side and nearer, and a smile.
SPEAKER = Keypoints(
    (SOURCE.points * (1.1, 1.2) + (0.05, -0.02)).astype(np.float32),
    SOURCE.jacobians * np.float32(1.1),
)
FRAME_S = 1 / 30
POLICY = JudgementPolicy()


def turned(amount: float, of: Keypoints = SPEAKER) -> Keypoints:
    """A face turned to the side, 1 about as far as one can: features move over, and are seen narrower."""
    points = of.points.copy()
    points[:, 0] += np.float32(0.3 * amount)
    return Keypoints(points, of.jacobians @ np.diag([1 - 0.5 * amount, 1]).astype(np.float32))


def blinking(of: Keypoints = SPEAKER) -> Keypoints:
    jacobians = of.jacobians.copy()
    for eye in EYES:
        jacobians[eye, 1] *= np.float32(0.1)
    return Keypoints(of.points, jacobians)


def broken(entry: float, of: Keypoints = SPEAKER) -> Keypoints:
    jacobians = of.jacobians.copy()
    jacobians[4, 0, 1] = entry
    return Keypoints(of.points, jacobians)


class Call:
    """A judgement fed at 30 frames a second."""

    def __init__(self, policy: JudgementPolicy = POLICY, seed: int = 0) -> None:
        self.judgement = Judgement(SOURCE, policy, seed)
        self.frame = 0

    def send(self, found: Keypoints | None, frames: int = 1) -> list[Judged]:
        judged = []
        for _ in range(frames):
            judged.append(self.judgement.judge(found, 1000 + self.frame * FRAME_S))
            self.frame += 1
        return judged


def test_l2_is_equation_2() -> None:
    motion = Keypoints.at_rest()
    assert l2(motion) == 0
    motion.points[0], motion.points[7] = (0.3, 0.0), (0.0, -0.4)
    assert l2(motion) == pytest.approx(2 * 0.5)
    motion.jacobians[2, 0, 0], motion.jacobians[9, 1, 0] = 1.6, 0.8
    assert l2(motion) == pytest.approx(2 * 0.5 + 1.0)
    assert l2(motion, alpha=1, beta=3) == pytest.approx(0.5 + 3.0)
    assert not math.isfinite(l2(broken(math.nan)))


def test_a_blink_is_well_below_tau_and_a_turned_head_above() -> None:
    assert 1.0 < l2(blinking().relative_to(SPEAKER)) < 0.6 * TAU
    assert l2(turned(1.0).relative_to(SPEAKER)) > TAU


class TestInitialFrame:
    def test_first_face_is_the_initial_one_and_moves_nothing(self) -> None:
        (first,) = Call().send(SPEAKER)
        assert first.flags == MotionFlags.NEW_INITIAL_FRAME
        assert first.verdict is FrameVerdict.ACCEPTED
        np.testing.assert_allclose(first.motion.rows(), Keypoints.at_rest().rows(), atol=1e-6)

    def test_one_closer_to_the_source_pose_replaces_it_and_one_that_is_not_does_not(self) -> None:
        call = Call()
        flags = [call.send(face)[0].flags for face in (turned(0.5), turned(0.6), SPEAKER, turned(0.2))]
        new, none = MotionFlags.NEW_INITIAL_FRAME, MotionFlags.NONE
        assert flags == [new, none, new, none]
        assert call.judgement.initial_frames == 2
        later = call.send(SPEAKER, 20)[-1]
        np.testing.assert_allclose(later.motion.rows(), Keypoints.at_rest().rows(), atol=1e-6)

    def test_a_hairs_breadth_closer_is_not_enough(self) -> None:
        call = Call()
        call.send(turned(0.5))
        drifting = [call.send(turned(amount))[0].flags for amount in np.linspace(0.5, 0.0, 60)]
        assert 1 <= sum(bool(flag & MotionFlags.NEW_INITIAL_FRAME) for flag in drifting) < 15

    def test_replacing_it_is_eased_over(self) -> None:
        call = Call()
        call.send(turned(0.5), 30)
        before = call.send(turned(0.6), 30)[-1].motion
        after = call.send(SPEAKER)[0].motion
        np.testing.assert_allclose(after.rows(), before.rows(), atol=1e-6)
        steps = np.diff([judged.motion.points[4, 0] for judged in call.send(SPEAKER, 12)])
        assert np.abs(steps).max() < abs(before.points[4, 0]) / 7.5 * 1.6

    def test_an_eye_that_was_shut_in_it_can_open(self) -> None:
        call = Call()
        judged = call.send(blinking(), 3) + call.send(SPEAKER, 30)
        assert judged[3].flags & MotionFlags.NEW_INITIAL_FRAME
        assert [entry.verdict for entry in judged] == [FrameVerdict.ACCEPTED] * 33

    @pytest.mark.parametrize("entry", [math.nan, math.inf])
    def test_cannot_hold_what_is_not_finite(self, entry: float) -> None:
        call = Call()
        (first,) = call.send(broken(entry))
        assert first.verdict is FrameVerdict.REJECTED
        assert first.l2 is None
        assert call.judgement.initial_frames == 0
        assert call.send(SPEAKER)[0].flags & MotionFlags.NEW_INITIAL_FRAME

    def test_cannot_have_a_jacobian_without_an_inverse(self) -> None:
        flat = Keypoints(SPEAKER.points, SPEAKER.jacobians @ np.diag([1, 0]).astype(np.float32))
        call = Call()
        assert call.send(flat)[0].verdict is FrameVerdict.REJECTED
        assert call.send(SPEAKER)[0].verdict is FrameVerdict.ACCEPTED
        with pytest.raises(
            ValueError, match=r"^the source pose has a singular Jacobian or a value that is not finite$"
        ):
            Judgement(flat)

    def test_who_comes_after_a_long_absence_has_one_of_their_own(self) -> None:
        call = Call()
        call.send(SPEAKER, 30)
        call.send(None, 45)
        assert not call.send(turned(0.4))[0].flags & MotionFlags.NEW_INITIAL_FRAME
        call.send(None, 75)
        assert call.send(turned(0.4))[0].flags & MotionFlags.NEW_INITIAL_FRAME


class TestRejection:
    def test_what_is_fit_is_sent_as_it_is(self) -> None:
        call = Call()
        call.send(SPEAKER, 30)
        (judged,) = call.send(turned(0.3))
        assert judged.motion == turned(0.3).relative_to(SPEAKER)
        assert judged.flags == MotionFlags.NONE
        assert judged.l2 == pytest.approx(l2(judged.motion))

    def test_a_single_bad_frame_holds_the_last_motion(self) -> None:
        call = Call()
        call.send(SPEAKER, 10)
        good = call.send(turned(0.2))[0].motion
        (bad,) = call.send(turned(1.2))
        assert bad.verdict is FrameVerdict.REJECTED
        assert bad.flags == MotionFlags.DEFAULT_MOTION
        assert bad.motion == good
        assert bad.l2 is not None
        assert bad.l2 > TAU
        after = call.send(turned(0.2), 10)
        assert [judged.verdict for judged in after] == [FrameVerdict.ACCEPTED] * 10

    def test_a_long_spell_goes_over_to_the_default_motion_and_back_without_a_jump(self) -> None:
        call = Call()
        call.send(SPEAKER, 10)
        talking = call.send(turned(0.4), 20)
        away = call.send(turned(1.2), 90)
        back = call.send(turned(0.4), 30)
        assert {judged.verdict for judged in away} == {FrameVerdict.REJECTED}
        assert all(judged.flags == MotionFlags.DEFAULT_MOTION for judged in away)
        # Bridged for three frames, then eased over twelve, then the default motion to the letter.
        resting_since_s = 3 * FRAME_S
        expected = DefaultMotion(SOURCE).at(89 * FRAME_S - resting_since_s)
        np.testing.assert_allclose(away[-1].motion.rows(), expected.rows(), atol=1e-5)
        assert [judged.verdict for judged in back[:6]] == [FrameVerdict.REJECTED] * 6, "calm for 0.2 s first"
        assert [judged.verdict for judged in back[7:]] == [FrameVerdict.ACCEPTED] * 23
        assert back[-1].motion == turned(0.4).relative_to(SPEAKER)
        shown = np.stack([judged.motion.points for judged in talking + away + back])
        assert np.abs(np.diff(shown, axis=0)).max() < 0.3 * 0.4 / 7.5 * 1.6

    def test_motion_about_tau_does_not_flicker(self) -> None:
        call = Call()
        call.send(SPEAKER, 10)
        just_above = next(a for a in np.linspace(0.5, 1.5, 500) if l2(turned(a).relative_to(SPEAKER)) > TAU)
        verdicts = [call.send(turned(just_above + 0.02 * (-1) ** i))[0].verdict for i in range(120)]
        changes = sum(a is not b for a, b in itertools.pairwise(verdicts))
        assert changes <= 1

    def test_what_no_packet_can_carry_is_rejected_whatever_tau_is(self) -> None:
        call = Call(JudgementPolicy(tau=math.inf))
        call.send(SPEAKER, 10)
        assert call.send(turned(1.2))[0].verdict is FrameVerdict.ACCEPTED
        far_away = Keypoints(SPEAKER.points + np.float32(4.5), SPEAKER.jacobians)
        assert call.send(far_away)[0].verdict is FrameVerdict.REJECTED
        assert call.send(Keypoints(SPEAKER.points, SPEAKER.jacobians * 9))[0].verdict is FrameVerdict.REJECTED
        assert call.send(broken(math.nan))[0].verdict is FrameVerdict.REJECTED

    def test_a_frame_that_is_not_finite_leaves_no_trace(self) -> None:
        call = Call()
        call.send(SPEAKER, 10)
        judged = call.send(broken(math.nan), 60) + call.send(SPEAKER, 20)
        assert all(np.isfinite(entry.motion.rows()).all() for entry in judged)
        assert judged[-1].motion == Keypoints.at_rest()


class TestLostFace:
    def test_before_the_first_face_the_default_motion_plays(self) -> None:
        call = Call()
        judged = call.send(None, 60)
        assert {entry.verdict for entry in judged} == {FrameVerdict.LOST}
        assert {entry.flags for entry in judged} == {MotionFlags.DEFAULT_MOTION}
        assert {entry.l2 for entry in judged} == {None}
        expected = DefaultMotion(SOURCE).at(59 * FRAME_S)
        np.testing.assert_allclose(judged[-1].motion.rows(), expected.rows(), atol=1e-5)

    def test_a_face_lost_and_found_again_is_eased_out_and_in(self) -> None:
        call = Call()
        call.send(SPEAKER, 10)
        talking = call.send(turned(0.4), 20)
        lost = call.send(None, 45)
        found = call.send(turned(0.4), 30)
        assert {judged.verdict for judged in lost} == {FrameVerdict.LOST}
        assert found[-1].verdict is FrameVerdict.ACCEPTED
        assert found[-1].motion == turned(0.4).relative_to(SPEAKER)
        shown = np.stack([judged.motion.points for judged in talking + lost + found])
        assert np.abs(np.diff(shown, axis=0)).max() < 0.3 * 0.4 / 7.5 * 1.6
        assert np.abs(lost[-1].motion.points).max() < 0.05

    def test_counts_what_became_of_every_frame(self) -> None:
        call = Call()
        call.send(None, 5)
        call.send(SPEAKER, 10)
        call.send(turned(1.2), 2)
        judgement = call.judgement
        assert (judgement.lost, judgement.accepted, judgement.rejected, judgement.initial_frames) == (5, 10, 2, 1)


def test_time_that_runs_backwards_is_refused_and_changes_nothing() -> None:
    judgement = Judgement(SOURCE)
    judgement.judge(SPEAKER, 10.0)
    with pytest.raises(TimeRanBackwards, match=r"^a frame was captured 0\.250 s before the previous frame$"):
        judgement.judge(SPEAKER, 9.75)
    assert judgement.accepted == 1
    assert judgement.judge(SPEAKER, 10.0).verdict is FrameVerdict.ACCEPTED


def test_every_motion_fits_a_packet_whatever_is_found() -> None:
    random = np.random.default_rng(5)
    call = Call(JudgementPolicy(tau=math.inf))
    for _ in range(400):
        size = 10 ** random.uniform(-4, 2)
        rows = SPEAKER.rows() + size * random.standard_normal((10, 6)).astype(np.float32)
        found = None if random.random() < 0.1 else Keypoints.from_rows(rows)
        (judged,) = call.send(found)
        MotionPacket.unpack(MotionPacket(0, 0, judged.motion, judged.flags).pack())


def test_the_seed_decides_when_the_default_motion_blinks() -> None:
    def lids(seed: int) -> list[float]:
        judged = Call(seed=seed).send(None, 300)
        return [float(entry.motion.jacobians[FaceKeypoint.LEFT_EYE, 1, 1]) for entry in judged]

    assert lids(1) == lids(1)
    assert lids(1) != lids(2)
