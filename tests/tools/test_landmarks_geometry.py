"""The landmark tool's geometry: keypoints and Jacobians from landmarks, without MediaPipe."""

from __future__ import annotations

import numpy as np
import pytest

from mien_landmarks.geometry import (
    CHIN,
    FOREHEAD,
    GROUPS,
    LOWER_LIP_INSIDE,
    Array,
    CropSquare,
    crop_box_of,
    keypoints_of,
    least_squares_jacobian,
    mean_face,
    most_neutral,
    strain,
    used_landmarks,
    well_conditioned,
)
from mien_landmarks.mean_face import fit_mean_face
from mien_shared.keypoints import EYES, NUM_KEYPOINTS, FaceKeypoint

EYE_RING = list(GROUPS[FaceKeypoint.LEFT_EYE].landmarks)
LEFT_LIDS = [i for i in EYE_RING if i not in (33, 133)]


def face() -> Array:
    return mean_face().copy()


def rotation(degrees: float) -> Array:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def closed(landmarks: Array, openness: float) -> Array:
    """The face with the opening of its left lids scaled by this factor about the lids' centre."""
    centre = landmarks[EYE_RING, 1].mean()
    landmarks[LEFT_LIDS, 1] = centre + openness * (landmarks[LEFT_LIDS, 1] - centre)
    return landmarks


class TestLeastSquaresJacobian:
    def test_recovers_an_affine_map_exactly(self) -> None:
        points = np.random.default_rng(1).normal(size=(12, 2))
        wanted = np.array([[1.2, 0.3], [-0.2, 0.7]])
        found = least_squares_jacobian(points, points @ wanted.T + (4, -3), np.eye(2), 0.0)
        np.testing.assert_allclose(found, wanted, atol=1e-9)

    def test_thin_direction_follows_the_prior(self) -> None:
        line = np.stack([np.linspace(-1, 1, 9), np.zeros(9)], axis=1)
        prior = rotation(20)
        found = least_squares_jacobian(line, line * (1.5, 1), prior, 0.05)
        np.testing.assert_allclose(found[:, 1], prior[:, 1], atol=1e-9)
        assert found[0, 0] == pytest.approx(1.5, abs=0.01)

    def test_noise_across_a_thin_group_is_not_amplified(self) -> None:
        rng = np.random.default_rng(2)
        strip = np.stack([np.linspace(-0.2, 0.2, 10), rng.normal(scale=0.005, size=10)], axis=1)
        noisy = strip + rng.normal(scale=0.01, size=strip.shape)
        found = least_squares_jacobian(strip, noisy, np.eye(2), 0.05)
        np.testing.assert_allclose(found, np.eye(2), atol=0.1)


class TestWellConditioned:
    def test_leaves_a_healthy_map_alone(self) -> None:
        healthy = rotation(10) @ np.diag([1.1, 0.8])
        np.testing.assert_allclose(well_conditioned(healthy, 0.5, 2), healthy, atol=1e-12)

    @pytest.mark.parametrize("raw", [np.zeros((2, 2)), np.diag([1.0, -0.4]), np.diag([9.0, 1e-5])])
    def test_bounds_singular_values_and_removes_reflections(self, raw: Array) -> None:
        bounded = well_conditioned(raw, 0.1, 2)
        values = np.linalg.svd(bounded, compute_uv=False)
        assert values.min() >= 0.1 - 1e-9
        assert values.max() <= 2 + 1e-9
        assert np.linalg.det(bounded) > 0


class TestKeypoints:
    def test_mean_face_has_unit_jacobians(self) -> None:
        keypoints = keypoints_of(face())
        np.testing.assert_allclose(keypoints.jacobians, np.tile(np.eye(2), (NUM_KEYPOINTS, 1, 1)), atol=1e-5)

    def test_mean_face_has_every_part_where_its_name_says(self) -> None:
        points = keypoints_of(face()).points
        for left, right in (("LEFT_BROW", "RIGHT_BROW"), ("LEFT_EYE", "RIGHT_EYE"), ("LEFT_CHEEK", "RIGHT_CHEEK")):
            np.testing.assert_allclose(points[FaceKeypoint[left]] * (-1, 1), points[FaceKeypoint[right]], atol=5e-3)
            assert points[FaceKeypoint[left], 0] < 0
        down_the_middle = [FaceKeypoint.NOSE, FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN]
        assert (np.diff(points[down_the_middle, 1]) > 0).all()
        assert points[FaceKeypoint.LEFT_BROW, 1] < points[FaceKeypoint.LEFT_EYE, 1] < points[FaceKeypoint.NOSE, 1]

    @pytest.mark.parametrize(("degrees", "scale"), [(12, 1.0), (-20, 1.15), (0, 0.9)])
    def test_head_tilt_and_distance_show_in_all_ten(self, degrees: float, scale: float) -> None:
        motion = scale * rotation(degrees)
        keypoints = keypoints_of(face() @ motion.T + (0.1, -0.05))
        np.testing.assert_allclose(keypoints.jacobians, np.tile(motion, (NUM_KEYPOINTS, 1, 1)), atol=1e-3)

    def test_closing_an_eye_shrinks_that_eye_alone(self) -> None:
        keypoints = keypoints_of(closed(face(), 0.0))
        assert keypoints.jacobians[FaceKeypoint.LEFT_EYE, 1, 1] < 0.25
        assert keypoints.jacobians[FaceKeypoint.LEFT_EYE, 0, 0] == pytest.approx(1, abs=0.02)
        others = [k for k in FaceKeypoint if k != FaceKeypoint.LEFT_EYE]
        np.testing.assert_allclose(keypoints.jacobians[others], np.tile(np.eye(2), (9, 1, 1)), atol=0.01)

    def test_eye_scale_is_about_its_openness(self) -> None:
        found = [keypoints_of(closed(face(), o)).jacobians[FaceKeypoint.LEFT_EYE, 1, 1] for o in (0.25, 0.5, 0.75)]
        np.testing.assert_allclose(found, (0.25, 0.5, 0.75), atol=0.12)

    def test_opening_the_jaw_parts_the_lips_and_leaves_the_eyes(self) -> None:
        landmarks = face()
        jaw = list(GROUPS[FaceKeypoint.LOWER_LIP].landmarks + GROUPS[FaceKeypoint.CHIN].landmarks)
        landmarks[sorted(set(jaw)), 1] += 0.1
        moved = keypoints_of(landmarks).relative_to(keypoints_of(face()))
        assert moved.points[FaceKeypoint.LOWER_LIP, 1] == pytest.approx(0.1, abs=1e-4)
        assert moved.points[FaceKeypoint.CHIN, 1] == pytest.approx(0.1, abs=1e-4)
        np.testing.assert_allclose(moved.points[list(EYES)], 0, atol=1e-6)

    def test_a_mouth_corner_is_no_part_of_a_lip(self) -> None:
        landmarks = face()
        landmarks[[61, 291], 1] -= 0.2
        np.testing.assert_array_equal(keypoints_of(landmarks).points, keypoints_of(face()).points)


class TestCrop:
    def test_box_frames_by_the_convention(self) -> None:
        landmarks = face() * 300 + (640, 360)
        box = crop_box_of(landmarks)
        framed = box.to_crop(landmarks)
        assert framed[CHIN, 1] - framed[FOREHEAD, 1] == pytest.approx(2 / 1.75, abs=0.01)
        assert (framed[CHIN, 1] + framed[FOREHEAD, 1]) / 2 == pytest.approx(2 * 0.47 - 1, abs=0.01)

    def test_mean_face_is_framed_like_a_crop(self) -> None:
        box = crop_box_of(face())
        np.testing.assert_allclose((box.x, box.y, box.size), (-1, -1, 2), atol=0.01)

    def test_half_way_to_another_box(self) -> None:
        assert CropSquare(0, 10, 100).towards(CropSquare(10, 0, 200), 0.5) == CropSquare(5, 5, 150)


class TestNeutral:
    def test_picks_the_frame_at_rest(self) -> None:
        open_mouth = face()
        open_mouth[LOWER_LIP_INSIDE, 1] += 0.15
        blink = closed(face(), 0.1)
        tilted = face() @ rotation(15).T
        assert most_neutral([open_mouth, blink, face(), tilted, face() + np.array([0.3, 0])]) == 2

    def test_every_departure_from_neutral_raises_the_strain(self) -> None:
        rest = strain(face())
        assert rest < 0.05
        assert strain(closed(face(), 0.2)) > rest + 0.3
        assert strain(face() @ rotation(15).T) > rest + 0.1


def test_mean_face_fit_finds_the_shape_behind_noisy_speakers() -> None:
    rng = np.random.default_rng(3)
    base = np.where(np.isnan(mean_face()), 0.0, mean_face())
    speakers = [
        [base * 200 + rng.normal(scale=0.3, size=base.shape) + (300 + 20 * n, 250) for _ in range(12)] for n in range(3)
    ]
    fitted = fit_mean_face(speakers)
    found = np.array([fitted[i] for i in used_landmarks()])
    np.testing.assert_allclose(found, mean_face()[used_landmarks()], atol=0.015)
