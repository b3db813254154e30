"""The bundled avatars: their pictures, and the keypoints that the drawing tool wrote with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import mien_web
from mien_shared.keypoints import FaceKeypoint

BUNDLED = Path(__file__).parents[2] / "services/gateway/mien_gateway/bundled"
NAMES = sorted(path.stem for path in BUNDLED.glob("*.json"))
every_person = pytest.mark.parametrize("name", NAMES)


def described(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BUNDLED / f"{name}.json").read_text())
    return found


def points_of(name: str) -> NDArray[np.float64]:
    return np.array(described(name)["keypoints"])


def test_the_gallery_has_several_people_and_a_small_picture_of_each() -> None:
    assert len(NAMES) >= 4
    for name in NAMES:
        small = cv2.imread(str(mien_web.ROOT / f"room/avatars/{name}.webp"))
        assert small is not None and small.shape == (160, 160, 3)
        assert (mien_web.ROOT / f"room/avatars/{name}.webp").stat().st_size < 12_000


@every_person
def test_picture_is_720p_and_light_enough_for_a_repository(name: str) -> None:
    picture = cv2.imread(str(BUNDLED / f"{name}.png"))
    assert picture is not None
    assert picture.shape == (720, 1280, 3)
    assert (BUNDLED / f"{name}.png").stat().st_size < 900_000


@every_person
def test_crop_is_384_inside_the_picture(name: str) -> None:
    crop = described(name)["crop"]
    assert crop["size"] == 384
    assert 0 <= crop["x"] <= 1280 - 384
    assert 0 <= crop["y"] <= 720 - 384


@every_person
def test_keypoints_lie_as_their_names_say_with_unit_jacobians(name: str) -> None:
    points = points_of(name)
    assert points.shape == (len(FaceKeypoint), 6)
    np.testing.assert_array_equal(points[:, 2:], [[1, 0, 0, 1]] * len(FaceKeypoint))
    for left, right in (("LEFT_BROW", "RIGHT_BROW"), ("LEFT_EYE", "RIGHT_EYE"), ("LEFT_CHEEK", "RIGHT_CHEEK")):
        np.testing.assert_allclose(points[FaceKeypoint[left], :2] * (-1, 1), points[FaceKeypoint[right], :2])
    middle = [FaceKeypoint.NOSE, FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN]
    assert (np.diff(points[middle, 1]) > 0).all()


@every_person
def test_eyes_are_dark_where_the_keypoints_say(name: str) -> None:
    """The keypoints fit the picture: there is a dark pupil at each eye, and skin that is lighter below it."""
    picture = cv2.imread(str(BUNDLED / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    crop = described(name)["crop"]
    for eye in (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE):
        x, y = ((points_of(name)[eye, :2] + 1) * crop["size"] / 2 + (crop["x"], crop["y"])).astype(int)
        pupil, skin = picture[y - 4 : y + 5, x - 4 : x + 5], picture[y + 28 : y + 34, x - 3 : x + 4]
        assert pupil.min() < 40
        assert skin.min() > pupil.min() + 25
