"""Where a face's crop belongs."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_encoder.crop import CropSquare
from mien_encoder.framing import MIN_CROP_SIZE, TEN_KEYPOINTS, change_of, crop_box, fit_layout, framing_of, is_usable
from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, FaceBox
from mien_shared.keypoints import FaceKeypoint, Keypoints

BOX = CropSquare(100, 50, 300)
LAYOUT = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint], np.float32)


def at(points: np.ndarray) -> Keypoints:
    return Keypoints(points.astype(np.float32), Keypoints.at_rest().jacobians)


def framed(points: np.ndarray) -> CropSquare:
    return framing_of(fit_layout(at(points)), BOX)


def test_a_face_of_the_measured_layout_is_framed_where_it_is() -> None:
    assert astuple(framed(LAYOUT)) == pytest.approx(astuple(BOX), abs=1e-3)
    assert fit_layout(at(LAYOUT)).misfit == pytest.approx(0, abs=1e-6)


def test_the_framing_moves_and_grows_with_the_face() -> None:
    found = framed(1.2 * LAYOUT + (0.1, -0.2))
    assert found.size == pytest.approx(360)
    assert found.centre == pytest.approx((250 + 0.1 * 150, 200 - 0.2 * 150))


def test_a_turned_face_keeps_its_crop_and_fits() -> None:
    angle = math.radians(20)
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    assert framed(LAYOUT @ turn.T).size == pytest.approx(300)
    assert fit_layout(at(LAYOUT @ turn.T)).misfit == pytest.approx(0, abs=1e-6)


def test_an_opening_mouth_hardly_moves_the_framing() -> None:
    spoken = LAYOUT.copy()
    spoken[[FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN], 1] += 0.15
    assert astuple(framed(spoken)) == pytest.approx(astuple(BOX), abs=1e-3)


def test_the_misfit_is_measured_in_the_face_s_own_size() -> None:
    crooked = LAYOUT + np.array([(0.1 * (-1) ** k, 0) for k in range(10)])
    misfits = [fit_layout(at(scale * crooked)).misfit for scale in (1.0, 0.4)]
    assert misfits[0] == pytest.approx(misfits[1], rel=1e-4)
    assert 0.05 < misfits[0] < 0.1


def test_keypoints_in_one_place_are_no_face() -> None:
    fit = fit_layout(at(np.zeros((10, 2))))
    assert not is_usable(framing_of(fit, BOX), 1280, 720)
    assert change_of(BOX, framing_of(fit, BOX)).growth == math.inf


def test_changes_are_shares_of_the_side() -> None:
    assert astuple(change_of(BOX, CropSquare(100, 80, 300))) == pytest.approx((0.1, 0))
    assert astuple(change_of(BOX, CropSquare.around(*BOX.centre, 330))) == pytest.approx((0, math.log(1.1)))


@pytest.mark.parametrize(
    ("box", "usable"),
    [
        (CropSquare(0, 0, 32), True),
        (CropSquare(0, 0, 31.9), False),
        (CropSquare(-1280 + 640, -900, 2560), True),
        (CropSquare(-1280 + 640, -900, 2561), False),
        (CropSquare(-200, 0, 300), False),
        (CropSquare(600, 650, 300), False),
    ],
)
def test_a_usable_crop_is_large_enough_and_shows_the_picture(box: CropSquare, usable: bool) -> None:
    assert is_usable(box, 1280, 720) == usable


@given(st.floats(-2000, 2000), st.floats(-2000, 2000), st.floats(1, 5000))
def test_any_crop_box_is_an_even_square_inside_the_picture(x: float, y: float, side: float) -> None:
    box = crop_box(CropSquare.around(x, y, side))
    assert box.x % 2 == box.y % 2 == box.size % 2 == 0
    assert MIN_CROP_SIZE <= box.size <= PICTURE_HEIGHT
    assert box.x + box.size <= PICTURE_WIDTH
    assert box.y + box.size <= PICTURE_HEIGHT


def test_a_crop_box_that_fits_is_where_it_was_wished() -> None:
    assert crop_box(CropSquare.around(640, 312, 384)) == FaceBox(x=448, y=120, size=384)
