"""The default motion: a face at rest that breathes, blinks, nods and smiles, the same every time; easing."""

from __future__ import annotations

import numpy as np
import pytest

from mien_shared.default_motion import DefaultMotion, Ease, blink, nod, smile
from mien_shared.keypoints import EYES, FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionPacket

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
MINUTE = np.arange(1800) / 30


def moved(points: float) -> Keypoints:
    return Keypoints(np.full((10, 2), points, np.float32), Keypoints.at_rest().jacobians)


class TestDefaultMotion:
    def test_begins_at_rest_and_is_the_same_every_time(self) -> None:
        motion = DefaultMotion(SOURCE)
        np.testing.assert_allclose(motion.at(0.0).points, 0, atol=1e-6)
        np.testing.assert_allclose(motion.at(0.0).jacobians, Keypoints.at_rest().jacobians, atol=1e-6)
        assert motion.at(12.34) == DefaultMotion(SOURCE).at(12.34)

    @pytest.mark.parametrize("seed", [0, 1, 77])
    def test_never_jumps_and_always_fits_a_packet(self, seed: int) -> None:
        rows = np.stack([DefaultMotion(SOURCE, seed).at(seconds).rows() for seconds in MINUTE])
        steps = np.abs(np.diff(rows, axis=0))
        assert steps[:, :, :2].max() < 0.012, "points move less than 2.3 pixels of 384 from frame to frame"
        assert steps[:, :, 2:5].max() < 0.02
        assert steps[:, EYES, 5].max() < 0.45, "a blink closes an eye in three frames or more"
        for row in rows[::45]:
            MotionPacket.unpack(MotionPacket(0, 0, Keypoints.from_rows(row)).pack())

    def test_blinks_nods_and_smiles_as_often_as_people_do(self) -> None:
        def times_begun(gesture: list[float]) -> int:
            return int((np.diff((np.array(gesture) > 0.5).astype(int)) == 1).sum())

        assert 12 <= times_begun([blink(s) for s in MINUTE]) <= 20
        assert 4 <= times_begun([nod(s) for s in MINUTE]) <= 7
        assert 3 <= times_begun([smile(s) for s in MINUTE]) <= 5
        assert blink(0.0) == nod(0.0) == smile(0.0) == 0.0

    def test_what_each_gesture_moves(self) -> None:
        motion = DefaultMotion(SOURCE)
        blinking = motion.at(max(MINUTE, key=blink))
        assert blinking.jacobians[EYES[0], 1, 1] < 0.3
        nodding, smiling = motion.at(max(MINUTE, key=nod)), motion.at(max(MINUTE, key=smile))
        assert (nodding.points[:, 1] > 0.012).all()
        assert smiling.jacobians[FaceKeypoint.UPPER_LIP, 0, 0] > 1.08
        assert smiling.points[FaceKeypoint.LEFT_CHEEK, 1] < smiling.points[FaceKeypoint.LEFT_BROW, 1]

    def test_another_seed_blinks_at_other_times(self) -> None:
        first, second = ([blink(s, seed) for s in MINUTE] for seed in (3, 4))
        assert first != second


class TestEase:
    def test_goes_over_without_a_jump_and_arrives(self) -> None:
        ease = Ease(0.0)
        ease.show(moved(0.2), 1.0)
        ease.begin(1.0, 0.4)
        shown = [ease.show(moved(1.0), 1.0 + frame / 30).points[0, 0] for frame in range(16)]
        assert shown[0] == pytest.approx(0.2)
        assert shown[12:] == pytest.approx([1.0] * 4)
        assert np.diff(shown).max() < 0.8 / 12 * 1.6

    def test_without_an_ease_the_target_is_shown_as_it_is(self) -> None:
        assert Ease(5.0).show(moved(0.3), 5.0) == moved(0.3)

    def test_an_ease_that_is_interrupted_goes_on_from_where_it_was(self) -> None:
        ease = Ease(0.0)
        ease.begin(0.0, 1.0)
        half = ease.show(moved(1.0), 0.5)
        ease.begin(0.5, 1.0)
        assert ease.show(moved(-1.0), 0.5) == half
