"""The fused maps of `warp` equal its maths, and no motion brings a number that is not finite into a picture."""

import threading
from itertools import islice

import numpy as np
import pytest
import warp_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mien_generator.face.contract import AvatarFace, FaceRequest
from mien_generator.face.features import limited_linear, safe_inverse
from mien_generator.face.head import MIN_SLOPE, limited, unfolding
from mien_generator.face.warp import WarpGenerator, Workspace, backward_map
from mien_generator.specimen import draw_speaker, face_of, talking
from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, FloatArray, Keypoints

K = FaceKeypoint
AVATAR = face_of(draw_speaker())
SOURCE = AVATAR.keypoints
GENERATOR = WarpGenerator()
FACE = GENERATOR.prepare(AVATAR)


def miss_px(avatar: AvatarFace, driving: Keypoints) -> FloatArray:
    """The distance of the fused map from the reference at every pixel."""
    face = GENERATOR.prepare(avatar)
    flow, _ = backward_map(face, driving, Workspace(face.size))
    expected = reference.reference_map(avatar.rgb, avatar.keypoints, driving)
    missed: FloatArray = np.linalg.norm(flow - expected, axis=-1).astype(np.float32)
    return missed


def with_lids(driving: Keypoints, height: float) -> Keypoints:
    jacobians = driving.jacobians.copy()
    jacobians[[K.LEFT_EYE, K.RIGHT_EYE], 1] *= np.float32(height)
    return Keypoints(driving.points, jacobians)


def turned(degrees: float) -> Keypoints:
    """The whole head turned and moved."""
    turn = reference.rotation(np.radians(degrees))
    points = SOURCE.points @ turn.T + np.array([0.04, -0.03])
    return Keypoints(points.astype(np.float32), (turn @ SOURCE.jacobians).astype(np.float32))


def talking_frames() -> list[Keypoints]:
    """With open eyes, because closed ones have a test of their own."""
    return [with_lids(driving, 1) for driving in list(islice(talking(SOURCE), 60))[5::11]]


@pytest.mark.parametrize("driving", [SOURCE, turned(8), turned(-12), *talking_frames()])
def test_the_fused_map_equals_the_equations(driving: Keypoints) -> None:
    missed = miss_px(AVATAR, driving)
    assert missed.max() < 0.2
    assert missed.mean() < 0.01


@pytest.mark.parametrize("height", [0.6, 0.3, 0.15])
def test_a_closing_eye_differs_only_along_its_lids(height: float) -> None:
    """There the map bends within a pixel, and the grid has a place at every second one."""
    missed = miss_px(AVATAR, with_lids(SOURCE, height))
    assert missed.max() < 1.2
    assert (missed > 0.2).mean() < 0.01
    assert missed.mean() < 0.01


def test_the_fused_map_equals_the_equations_for_keypoints_without_names_and_odd_sizes() -> None:
    shuffled = SOURCE.points[[7, 2, 0, 9, 5, 1, 8, 3, 6, 4]]
    avatar = AvatarFace(np.ascontiguousarray(AVATAR.rgb[:301, :301]), Keypoints(shuffled, SOURCE.jacobians))
    rng = np.random.default_rng(3)
    driving = Keypoints(shuffled + rng.normal(0, 0.01, shuffled.shape).astype(np.float32), SOURCE.jacobians)
    missed = miss_px(avatar, driving)
    assert missed.max() < 0.2
    assert missed.mean() < 0.01


entries = st.floats(-8, 8, width=32)
matrices = hnp.arrays(np.float64, (2, 2), elements=entries)
exponents = st.sampled_from([1.0, 1.4])


def entries_of(matrix: reference.Doubles) -> tuple[float, float, float, float]:
    a, b, c, d = matrix.ravel().tolist()
    return a, b, c, d


@given(matrices)
def test_an_inverse_is_the_references_and_finite(matrix: reference.Doubles) -> None:
    inverse = safe_inverse(entries_of(matrix))
    np.testing.assert_allclose(inverse, reference.safe_inverse(matrix).ravel(), rtol=1e-6, atol=1e-9)
    assert np.isfinite(inverse).all()


@given(matrices, exponents)
def test_a_keypoints_linear_part_has_the_references_limits(matrix: reference.Doubles, closing: float) -> None:
    part = limited_linear(entries_of(matrix), closing)
    expected = reference.limited_part(matrix - np.eye(2), closing)
    np.testing.assert_allclose(part, expected.ravel(), rtol=1e-5, atol=1e-6)


@given(matrices)
def test_the_heads_motion_has_the_references_limits(matrix: reference.Doubles) -> None:
    angle = np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    expected, _ = reference.limited_head(matrix, np.zeros(2), np.zeros(2))
    found = np.array(limited(entries_of(matrix))).reshape(2, 2)
    assert np.linalg.det(found) > 0
    if abs(angle) < 3:  # beyond, the direction of the turn is a matter of rounding
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


differences = hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-4, 4, width=32))


@given(differences, st.floats(0.25, 2))
def test_the_quick_decision_about_folds_agrees_with_the_eigenvalues(parts: FloatArray, step: float) -> None:
    xx, yy, twice_xy = parts
    symmetric = np.stack([np.stack([xx, twice_xy / 2], -1), np.stack([twice_xy / 2, yy], -1)], -2) / step
    smallest = float(np.linalg.eigvalsh(symmetric).min())
    expected = 1.0 if smallest >= 0 else min(1.0, (MIN_SLOPE - 1) / smallest)
    assert unfolding(xx, yy, twice_xy, step) == pytest.approx(expected, abs=1e-4)


def rest() -> FloatArray:
    (picture,) = GENERATOR.animate([FaceRequest(FACE, SOURCE)])
    return picture.astype(np.float32)


AT_REST = rest()


@given(
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -3e38]),
    st.integers(0, NUM_KEYPOINTS - 1),
    st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_one_number_that_cannot_be_used_shows_the_avatar_at_rest(bad: float, keypoint: int, column: int) -> None:
    rows = Keypoints(SOURCE.points + np.float32(0.03), SOURCE.jacobians).rows()
    rows[keypoint, column] = bad
    (picture,) = GENERATOR.animate([FaceRequest(FACE, Keypoints.from_rows(rows))])
    np.testing.assert_array_equal(picture, AT_REST)


@given(
    hnp.arrays(np.float32, (NUM_KEYPOINTS, 2), elements=st.floats(-900, 900, width=32)),
    hnp.arrays(np.float32, (NUM_KEYPOINTS, 2, 2), elements=st.sampled_from([0, 1e-30, -1e-6, 1, -1, 8, 900])),
)
@settings(max_examples=60, deadline=None)
def test_keypoints_far_outside_and_degenerate_jacobians_stay_finite(points: FloatArray, jacobians: FloatArray) -> None:
    flow, gap = backward_map(FACE, Keypoints(points, jacobians), Workspace(FACE.size))
    assert np.isfinite(flow).all()
    assert flow.min() > -FACE.size
    assert flow.max() < 2 * FACE.size
    assert gap is None or np.isfinite([gap.cover.max(), gap.depth.max(), gap.across.max()]).all()
    (picture,) = GENERATOR.animate([FaceRequest(FACE, Keypoints(points, jacobians))])
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_array_equal(picture[edge], AVATAR.rgb[edge])


def test_threads_that_animate_the_same_avatar_do_not_disturb_each_other() -> None:
    frames = list(islice(talking(SOURCE), 24))
    alone = GENERATOR.animate([FaceRequest(FACE, driving) for driving in frames])
    made: dict[int, list[FloatArray]] = {}

    def animate(thread: int) -> None:
        made[thread] = GENERATOR.animate([FaceRequest(FACE, driving) for driving in frames])  # type: ignore[assignment]

    threads = [threading.Thread(target=animate, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(made[number], alone)
