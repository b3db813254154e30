"""Square pictures of faces at the side that someone wants them."""

from __future__ import annotations

import cv2
import numpy as np

from mien_generator.face.contract import RgbArray
from mien_shared.motion import FloatArray


def scaled(rgb: RgbArray, size: int) -> RgbArray:
    """A square picture at `size` pixels."""
    if rgb.shape[0] == size:
        return rgb
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=interpolation(rgb.shape[0], size)), np.uint8)


def interpolation(side: int, size: int) -> int:
    """How cv2 is to bring `side` pixels to `size`."""
    return cv2.INTER_AREA if side > size else cv2.INTER_LINEAR


def resampling(side: int, size: int) -> FloatArray:
    """(size, side) float32, what `scaled` does to a column of pixels, as a matrix: one for rows, one for columns."""
    each_pixel = np.eye(side, dtype=np.float32)
    return np.asarray(cv2.resize(each_pixel, (side, size), interpolation=interpolation(side, size)), np.float32)
