"""Square pictures of faces at the side that someone wants them."""

from __future__ import annotations

import cv2
import numpy as np

from mien_generator.face.contract import RgbArray


def scaled(rgb: RgbArray, size: int) -> RgbArray:
    """A square picture at `size` pixels."""
    interpolation = cv2.INTER_AREA if rgb.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=interpolation), np.uint8)
