"""Crop boxes and source keypoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_encoder.crop import (
    FIVE_LANDMARKS,
    MIN_CROP_SIZE,
    TEN_KEYPOINTS,
    CropWish,
    Face,
    crop_box,
    crop_wish,
    source_keypoints,
)
from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, FaceBox
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionPacket

BOX = FaceBox(x=448, y=120, size=384)
LAYOUT = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint])


def face(landmarks_in_crop: np.ndarray, box: FaceBox = BOX) -> Face:
    pixels = (landmarks_in_crop + 1) * box.size / 2 + (box.x, box.y)
    return Face(600, 250, 160, 220, 1.0, pixels)


def test_a_crop_is_framed_by_the_convention() -> None:
    wish = crop_wish(Face(500, 200, 180, 250, 1.0, np.zeros((5, 2))))
    face_height = 0.88 * 250
    assert wish.side == pytest.approx(1.75 * face_height)
    assert wish.centre_x == 590
    face_centre_y = 200 + 125 + 0.055 * 250
    assert face_centre_y == pytest.approx(wish.centre_y - wish.side / 2 + 0.47 * wish.side)


@given(st.floats(-2000, 2000), st.floats(-2000, 2000), st.floats(1, 5000))
def test_any_crop_box_is_an_even_square_inside_the_picture(x: float, y: float, side: float) -> None:
    box = crop_box(CropWish(x, y, side))
    assert box.x % 2 == box.y % 2 == box.size % 2 == 0
    assert MIN_CROP_SIZE <= box.size <= PICTURE_HEIGHT
    assert box.x + box.size <= PICTURE_WIDTH
    assert box.y + box.size <= PICTURE_HEIGHT


def test_a_crop_box_that_fits_is_where_it_was_wished() -> None:
    assert crop_box(CropWish(640, 312, 384)) == BOX


def test_a_face_of_the_measured_layout_has_its_keypoints_and_unit_jacobians() -> None:
    found = source_keypoints(face(FIVE_LANDMARKS), BOX)
    assert np.allclose(found.points, LAYOUT, atol=1e-6)
    assert np.allclose(found.jacobians, np.eye(2), atol=1e-6)


def test_keypoints_follow_a_face_that_is_turned_scaled_and_moved() -> None:
    angle, scale = math.radians(20), 1.3
    turn = scale * np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    found = source_keypoints(face(FIVE_LANDMARKS @ turn.T + (0.1, -0.2)), BOX)
    assert np.allclose(found.points, LAYOUT @ turn.T + (0.1, -0.2), atol=1e-5)
    assert np.allclose(found.jacobians, turn, atol=1e-5)


def test_eyes_and_nose_follow_their_own_landmarks() -> None:
    off = FIVE_LANDMARKS.copy()
    off[2] += (0.1, 0.0)  # a head turned a little: the nose moves, the rest hardly
    moved = source_keypoints(face(off), BOX).points - LAYOUT
    assert moved[FaceKeypoint.NOSE][0] == pytest.approx(0.1, abs=0.02)
    assert abs(moved[FaceKeypoint.CHIN][0]) < 0.05


def test_the_keypoints_are_fit_for_the_wire() -> None:
    keypoints = source_keypoints(face(FIVE_LANDMARKS), BOX)
    packet = MotionPacket.unpack(MotionPacket(0, 0, keypoints).pack())
    assert np.allclose(packet.keypoints.points, keypoints.points, atol=1e-3)
    assert isinstance(keypoints, Keypoints)


def test_a_moved_face_takes_everything_along() -> None:
    moved = Face(10, 20, 30, 40, 0.9, np.ones((5, 2))).moved(2.0, 1.0, -1.0)
    assert (moved.x, moved.y, moved.width, moved.height, moved.confidence) == (21, 39, 60, 80, 0.9)
    assert (moved.landmarks == (3.0, 1.0)).all()
