"""Cutting crops: with OpenCV and with NumPy alone the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from js.drawn_face import Pose, draw

from mien_encoder.crop import CropSquare, RgbArray, cut
from mien_encoder.resampling import NumpyResampler, OpenCvResampler, Resampler

BOTH = pytest.mark.parametrize("by", [NumpyResampler(), OpenCvResampler()], ids=["numpy", "opencv"])


@pytest.fixture(scope="module")
def picture() -> RgbArray:
    grain = np.random.default_rng(2).integers(-9, 10, (480, 640, 3))
    return (draw(Pose()) + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "square",
    [
        CropSquare(177.25, 123.5, 285.125),
        CropSquare(222.4, 170.3, 190.7),
        CropSquare(192, 112, 256),
        CropSquare(-120.2, -300.6, 900.3),
        CropSquare(400.6, 250.1, 300.9),
        CropSquare(300.5, 200.5, 40.25),
        CropSquare(0.25, 0.75, 480),
        CropSquare(-600, -700, 1800),
    ],
    ids=lambda square: f"{square.size:g}",
)
def test_numpy_cuts_what_opencv_cuts(picture: RgbArray, square: CropSquare) -> None:
    ours, theirs = (cut(picture, square, 256, by).astype(int) for by in (NumpyResampler(), OpenCvResampler()))
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.02


@BOTH
def test_a_square_of_the_crop_s_size_is_copied(picture: RgbArray, by: Resampler) -> None:
    assert (cut(picture, CropSquare(100, 50, 256), 256, by) == picture[50:306, 100:356]).all()


@BOTH
@pytest.mark.parametrize("step", [2, 3, 17])
def test_a_large_square_is_averaged(by: Resampler, step: int) -> None:
    grain = np.random.default_rng(step).integers(0, 256, (20 * step, 20 * step, 3), np.uint8)
    means = grain.reshape(20, step, 20, step, 3).mean(axis=(1, 3))
    found = cut(grain, CropSquare(0, 0, 20 * step), 20, by)
    assert np.abs(found - means).max() <= 0.501


@BOTH
@pytest.mark.parametrize("size", [30, 300])
def test_beyond_its_edges_a_picture_repeats(by: Resampler, size: int) -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:, -1] = 200
    found = cut(picture, CropSquare(9, 0, size), 60, by)
    assert (found[:, 40:] == 200).all()


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (700, 2, 3)])
def test_the_smallest_pictures_have_crops(by: Resampler, shape: tuple[int, int, int]) -> None:
    for square in (CropSquare(-3.5, 0, 8), CropSquare(0, -90, 600)):
        assert (cut(np.full(shape, 90, np.uint8), square, 256, by) == 90).all()


def test_crop_and_picture_coordinates_are_inverse() -> None:
    square = CropSquare(100, 40, 200)
    assert square.to_crop(np.array([200.0, 140.0])) == pytest.approx([0, 0])
    assert square.to_picture(square.to_crop(np.array([111.0, 222.0]))) == pytest.approx([111, 222])
    assert CropSquare.around(*square.centre, square.size) == square


def test_a_square_moves_with_its_picture() -> None:
    assert CropSquare(10, 20, 30).moved(2.0, 1.0, -1.0) == CropSquare(21, 39, 60)
