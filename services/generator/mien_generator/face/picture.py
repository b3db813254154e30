"""Square pictures of faces at the side that someone wants them."""

from __future__ import annotations

import cv2
import numpy as np

from mien_generator.face.contract import RgbArray
from mien_shared.keypoints import FloatArray


def scaled(rgb: RgbArray, size: int) -> RgbArray:
    """A square picture at `size` pixels."""
    if rgb.shape[0] == size:
        return rgb
    interpolation = cv2.INTER_AREA if rgb.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=interpolation), np.uint8)


def pasting(side: int, size: int) -> int:
    """How cv2 is to bring a made face to its crop, every frame.

    Between two pixels as long as it shrinks by no more than a third: on portraits that is 47 dB or more from the mean
    over the area, in a sixth of its time.
    """
    return cv2.INTER_AREA if 3 * size < 2 * side else cv2.INTER_LINEAR


def resampling(side: int, size: int) -> FloatArray:
    """(size, side) float32, what `pasting` does to a column of pixels, as a matrix: one for rows, one for columns."""
    each_pixel = np.eye(side, dtype=np.float32)
    return np.asarray(cv2.resize(each_pixel, (side, size), interpolation=pasting(side, size)), np.float32)
