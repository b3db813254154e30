"""Fitting an upload into the still picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_encoder.crop import CropSquare
from mien_gateway.picture import Placement, choose_window, compose
from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH


def placed(width: int, height: int, side: float, x: float = 0.5, y: float = 0.4) -> Placement:
    return choose_window(width, height, CropSquare.around(x * width, y * height, side))


def test_a_picture_of_the_right_shape_stays_as_it_is() -> None:
    assert placed(1280, 720, 400) == Placement(0, 0, 1280, 720, 1.0, 0, 0, 1280, 720)


def test_a_wide_picture_is_cut_around_the_face() -> None:
    window = placed(3000, 720, 400, x=0.9)
    assert (window.width, window.height, window.x) == (1280, 720, 1720)


def test_a_narrow_picture_with_room_around_the_head_fills_the_frame() -> None:
    window = placed(1000, 1000, 400)
    assert (window.width, window.pane_width, window.pane_height) == (1000, PICTURE_WIDTH, PICTURE_HEIGHT)


def test_a_narrow_close_up_keeps_its_height_between_blurred_sides() -> None:
    window = placed(1000, 1000, 700)
    assert (window.width, window.height) == (1000, 1000)
    assert (window.pane_width, window.pane_height, window.left) == (720, 720, 280)


def test_a_tall_picture_becomes_a_square_pane() -> None:
    window = placed(1000, 3000, 900, y=0.2)
    assert (window.width, window.height) == (1000, 1008)


def test_a_small_face_in_a_large_picture_is_brought_near() -> None:
    window = placed(4000, 3000, 400)
    assert window.width / window.height == pytest.approx(16 / 9, rel=0.01)
    assert 400 * window.scale == pytest.approx(320, rel=0.01)


def test_a_small_picture_is_not_blown_up() -> None:
    window = placed(160, 120, 100)
    assert window.scale == 3.0
    assert (window.pane_width, window.pane_height) == (480, 360)


@given(
    st.integers(8, 3000),
    st.integers(8, 3000),
    st.floats(0.05, 1.5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_any_window_lies_in_the_upload_and_any_pane_in_the_picture(
    width: int, height: int, share: float, x: float, y: float
) -> None:
    window = placed(width, height, share * min(width, height), x, y)
    assert 0 <= window.x <= window.x + window.width <= width
    assert 0 <= window.y <= window.y + window.height <= height
    assert 0 <= window.left <= window.left + window.pane_width <= PICTURE_WIDTH
    assert 0 <= window.top <= window.top + window.pane_height <= PICTURE_HEIGHT
    assert window.pane_width == pytest.approx(window.width * window.scale, abs=4)
    assert window.pane_height == pytest.approx(window.height * window.scale, abs=4)


def test_the_pane_shows_the_upload_and_the_sides_its_darker_likeness() -> None:
    upload = np.full((1000, 1000, 3), 200, np.uint8)
    picture = compose(upload, placed(1000, 1000, 700))
    assert picture.shape == (PICTURE_HEIGHT, PICTURE_WIDTH, 3)
    assert (picture[:, 400:880] == 200).all()
    assert (np.abs(picture[:, :250].astype(int) - 110) <= 1).all()
    across = picture[360, :640, 0].astype(int)
    assert (np.diff(across) >= 0).all(), "the edge is soft"
    assert np.diff(across).max() < 10


@pytest.mark.parametrize("size", [(1, 1), (3000, 8), (8, 3000)])
def test_even_absurd_uploads_make_a_picture(size: tuple[int, int]) -> None:
    width, height = size
    picture = compose(np.zeros((height, width, 3), np.uint8), placed(width, height, 5))
    assert picture.shape == (PICTURE_HEIGHT, PICTURE_WIDTH, 3)
