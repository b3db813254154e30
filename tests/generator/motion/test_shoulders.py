"""The keypoints near the shoulders stay where the avatar has them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.motion.shoulders import FREE_ABOVE_Y, HELD_BELOW_Y, hold_shoulders
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints


def at_heights(heights: list[float]) -> Keypoints:
    points = np.stack([np.linspace(-0.5, 0.5, NUM_KEYPOINTS), np.array(heights)], axis=1).astype(np.float32)
    return Keypoints(points, np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1)))


def moved(source: Keypoints) -> Keypoints:
    return Keypoints(source.points + np.array([0.1, -0.2], np.float32), source.jacobians * np.float32(1.5))


def test_a_face_above_the_shoulders_moves_freely() -> None:
    source = at_heights([-0.5, -0.5, -0.3, -0.3, 0, 0.2, 0.3, 0.55, 0, 0])
    assert hold_shoulders(source, moved(source)) == moved(source)


def test_a_keypoint_on_the_shoulders_keeps_its_place_and_its_jacobian() -> None:
    source = at_heights([-0.5, -0.5, -0.3, -0.3, 0, 0.2, 0.3, 0.55, 0.8, 0.9])
    held = hold_shoulders(source, moved(source))
    np.testing.assert_array_equal(held.points[8:], source.points[8:])
    np.testing.assert_array_equal(held.jacobians[8:], source.jacobians[8:])
    np.testing.assert_array_equal(held.points[:8], moved(source).points[:8])


def test_the_height_that_decides_is_the_avatars_not_the_speakers() -> None:
    source = at_heights([0.0] * NUM_KEYPOINTS)
    bowed = Keypoints(source.points + np.array([0, 0.9], np.float32), source.jacobians)
    assert hold_shoulders(source, bowed) == bowed


@given(st.floats(FREE_ABOVE_Y, HELD_BELOW_Y), st.floats(FREE_ABOVE_Y, HELD_BELOW_Y))
def test_the_hold_only_grows_downwards(one: float, other: float) -> None:
    high, low = sorted((one, other))
    source = at_heights([high, low] + [0.0] * 8)
    motion = np.abs(hold_shoulders(source, moved(source)).points - source.points).sum(axis=1)
    assert motion[1] <= motion[0] + 1e-6
    assert motion[0] <= 0.3 + 1e-6


def test_where_the_hold_begins_can_be_chosen() -> None:
    source = at_heights([0.5, 0.3] + [0.0] * 8)
    held = hold_shoulders(source, moved(source), from_y=0.4)
    np.testing.assert_array_equal(held.points[0], source.points[0])
    np.testing.assert_array_equal(held.points[1], moved(source).points[1])
