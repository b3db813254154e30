"""Averages and resamples pictures, with OpenCV where it is installed and with NumPy alone otherwise.

Both give the same pixels but for one in some thousands, which differs by one level. NumPy takes about ten times as
long; a sender should have OpenCV, a gateway needs it for nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RgbArray = NDArray[np.uint8]
_Floats = NDArray[np.float32]
_Places = NDArray[np.int64]

#: The sum of so many squared pixels of 255 still fits 16 bits.
_MOST_STEP_IN_16_BITS = 16


class Resampler(Protocol):
    """Two operations on (H, W, 3) RGB. Outside the picture its edge pixels are repeated."""

    def averaged(self, rgb: RgbArray, left: int, top: int, side: int, step: int) -> RgbArray:
        """The square of side * step pixels at (left, top) as (side, side, 3), each pixel the mean of step x step."""

    def resampled(self, rgb: RgbArray, left: float, top: float, scale: float, size: int) -> RgbArray:
        """(size, size, 3): pixel i shows position left + (i + 0.5) * scale - 0.5, interpolated linearly."""


class NumpyResampler:
    """Resampler on NumPy. It computes as OpenCV 5 does, in the same order, with floats of 32 bits."""

    def averaged(self, rgb: RgbArray, left: int, top: int, side: int, step: int) -> RgbArray:
        height, width = rgb.shape[:2]
        window = rgb[_within(top, side * step, height)][:, _within(left, side * step, width)]
        sums = np.zeros((side, side, 3), np.uint16 if step <= _MOST_STEP_IN_16_BITS else np.uint32)
        for y in range(step):
            for x in range(step):
                sums += window[y::step, x::step]
        if step == 2:  # OpenCV rounds halves up for a step of 2, otherwise to even
            return np.asarray((sums + 2) >> 2, np.uint8)
        return np.asarray(np.rint(sums * np.float32(1 / (step * step))), np.uint8)

    def resampled(self, rgb: RgbArray, left: float, top: float, scale: float, size: int) -> RgbArray:
        height, width = rgb.shape[:2]
        above, below, down = _neighbours(top, scale, size, height)
        before, after, across = _neighbours(left, scale, size, width)
        lines = _between(rgb[above], rgb[below], down[:, None, None])
        pixels = _between(lines.take(before, axis=1), lines.take(after, axis=1), across[:, None])
        return np.asarray(np.rint(pixels), np.uint8)


def _within(start: int, count: int, length: int) -> slice | _Places:
    """Which `count` rows or columns of a picture there are from `start` on."""
    if start >= 0 and start + count <= length:
        return slice(start, start + count)
    return np.arange(start, start + count).clip(0, length - 1)


def _neighbours(start: float, scale: float, size: int, length: int) -> tuple[_Places, _Places, _Floats]:
    """The two rows or columns between which each of `size` places lies, and its share of the way to the second."""
    at = (np.arange(size) * scale + (start + 0.5 * scale - 0.5)).astype(np.float32)
    before = np.floor(at)
    first = before.astype(np.int64)
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), at - before


def _between(a: NDArray[Any], b: NDArray[Any], share: _Floats) -> _Floats:
    first = a.astype(np.float32, copy=False)
    return np.asarray(first + (b - first) * share, np.float32)


class OpenCvResampler:
    """Resampler on OpenCV. Raises ImportError without it."""

    def __init__(self) -> None:
        self._cv2: Any = importlib.import_module("cv2")

    def averaged(self, rgb: RgbArray, left: int, top: int, side: int, step: int) -> RgbArray:
        window = self._window(rgb, left, top, side * step)
        return np.asarray(self._cv2.resize(window, (side, side), interpolation=self._cv2.INTER_AREA), np.uint8)

    def resampled(self, rgb: RgbArray, left: float, top: float, scale: float, size: int) -> RgbArray:
        cv2 = self._cv2
        shift = 0.5 * scale - 0.5
        matrix = np.array([[scale, 0, left + shift], [0, scale, top + shift]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        found = cv2.warpAffine(rgb, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.uint8)

    def _window(self, rgb: RgbArray, left: int, top: int, side: int) -> RgbArray:
        height, width = rgb.shape[:2]
        x0, y0 = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
        x1, y1 = max(min(left + side, width), x0 + 1), max(min(top + side, height), y0 + 1)
        inside = rgb[y0:y1, x0:x1]
        before_y, before_x = max(y0 - top, 0), max(x0 - left, 0)
        after_y, after_x = max(top + side - y1, 0), max(left + side - x1, 0)
        if not (before_x or before_y or after_x or after_y):
            return inside
        border = self._cv2.BORDER_REPLICATE
        padded = self._cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, border)
        return np.asarray(padded[:side, :side], np.uint8)


def fastest() -> Resampler:
    """The faster of what is installed."""
    return NumpyResampler() if importlib.util.find_spec("cv2") is None else OpenCvResampler()
