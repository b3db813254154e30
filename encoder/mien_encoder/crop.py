"""Cuts a face's crop out of a picture. Pure geometry and pixels; `framing.py` says where the crop belongs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien_encoder.resampling import Resampler, RgbArray, fastest

__all__ = ["CropSquare", "Points", "RgbArray", "cut"]

Points = NDArray[np.float64]

_FASTEST = fastest()


@dataclass(frozen=True, slots=True)
class CropSquare:
    """Position of a crop in a picture, in fractional pixels. It may reach beyond the picture's edges."""

    x: float
    y: float
    size: float

    @classmethod
    def around(cls, centre_x: float, centre_y: float, size: float) -> CropSquare:
        """The square with this centre and side."""
        return cls(centre_x - size / 2, centre_y - size / 2, size)

    @property
    def centre(self) -> tuple[float, float]:
        """Its centre (x, y), in pixels of the picture."""
        return self.x + self.size / 2, self.y + self.size / 2

    def moved(self, scale: float, dx: float, dy: float) -> CropSquare:
        """The same square in a picture scaled by `scale` and then shifted."""
        return CropSquare(self.x * scale + dx, self.y * scale + dy, self.size * scale)

    def to_crop(self, points: NDArray[np.floating]) -> Points:
        """Convert (..., 2) pixels of the picture to crop coordinates; the square spans [-1, 1]."""
        return np.asarray((points - (self.x, self.y)) * (2 / self.size) - 1, np.float64)

    def to_picture(self, points: NDArray[np.floating]) -> Points:
        """Convert (..., 2) crop coordinates to pixels of the picture."""
        return np.asarray((points + 1.0) * (self.size / 2) + (self.x, self.y), np.float64)

    def towards(self, other: CropSquare, amount: float) -> CropSquare:
        """Interpolate towards another square: amount 0 gives this square, 1 gives the other one."""
        return CropSquare(
            self.x + amount * (other.x - self.x),
            self.y + amount * (other.y - self.y),
            self.size + amount * (other.size - self.size),
        )


def cut(rgb: RgbArray, square: CropSquare, size: int, by: Resampler = _FASTEST) -> RgbArray:
    """The square as (size, size, 3). Outside the picture, its edge pixels are repeated.

    A square that is larger than `size` is averaged and not only sampled, because small networks see aliasing as motion.
    """
    left, top, side = square.x, square.y, square.size
    if side > size:
        # First average by an integer factor, to between one and two times `size`. Then resample for the rest of the
        # scale and for the sub-pixel shift. Both steps are cheap.
        step = int(side / size)
        whole_left, whole_top = int(np.floor(left)), int(np.floor(top))
        small_side = (int(np.ceil(side)) + step) // step + 1
        rgb = by.averaged(rgb, whole_left, whole_top, small_side, step)
        left, top, side = (left - whole_left) / step, (top - whole_top) / step, side / step
    return by.resampled(rgb, left, top, side / size, size)
