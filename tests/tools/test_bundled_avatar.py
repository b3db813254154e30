"""The bundled avatar: its picture, and the keypoints that the drawing tool wrote with it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from mien_shared.keypoints import FaceKeypoint

BUNDLED = Path(__file__).parents[2] / "services/gateway/mien_gateway/bundled"
DESCRIBED = json.loads((BUNDLED / "mien.json").read_text())
POINTS = np.array(DESCRIBED["keypoints"])


def test_picture_is_720p_and_light_enough_for_a_repository() -> None:
    picture = cv2.imread(str(BUNDLED / "mien.png"))
    assert picture is not None
    assert picture.shape == (720, 1280, 3)
    assert (BUNDLED / "mien.png").stat().st_size < 900_000


def test_crop_is_384_inside_the_picture() -> None:
    crop = DESCRIBED["crop"]
    assert crop["size"] == 384
    assert 0 <= crop["x"] <= 1280 - 384
    assert 0 <= crop["y"] <= 720 - 384


def test_keypoints_lie_as_their_names_say_with_unit_jacobians() -> None:
    assert POINTS.shape == (len(FaceKeypoint), 6)
    np.testing.assert_array_equal(POINTS[:, 2:], [[1, 0, 0, 1]] * len(FaceKeypoint))
    for left, right in (("LEFT_BROW", "RIGHT_BROW"), ("LEFT_EYE", "RIGHT_EYE"), ("LEFT_CHEEK", "RIGHT_CHEEK")):
        np.testing.assert_allclose(POINTS[FaceKeypoint[left], :2] * (-1, 1), POINTS[FaceKeypoint[right], :2])
    middle = [FaceKeypoint.NOSE, FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN]
    assert (np.diff(POINTS[middle, 1]) > 0).all()


def test_eyes_are_dark_where_the_keypoints_say() -> None:
    """The keypoints fit the picture: there is a dark pupil at each eye, and skin below it."""
    picture = cv2.imread(str(BUNDLED / "mien.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    crop = DESCRIBED["crop"]
    for eye in (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE):
        x, y = ((POINTS[eye, :2] + 1) * crop["size"] / 2 + (crop["x"], crop["y"])).astype(int)
        assert picture[y - 4 : y + 5, x - 4 : x + 5].min() < 40
        assert picture[y + 28 : y + 34, x - 3 : x + 4].min() > 150
