"""The place of a face in the still 1280x720 picture, and its soft border. Free of codecs: device backends import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import FloatArray

if TYPE_CHECKING:  # avoids an import of the avatar store's packages at run time
    from mien_shared.avatars import FaceBox

FRAME_WIDTH = 1280
FRAME_HEIGHT = 720

#: Side of the smallest crop that has pixels inside its soft border.
MIN_CROP = 16

#: Width of the soft border, and radius of its corners, as shares of the crop's side.
FEATHER = 0.04
CORNER = 0.12


class FrameShapeError(ValueError):
    """The compositor cannot use a picture, crop box or face of this shape."""


@dataclass(frozen=True, slots=True, eq=False)
class PasteRegion:
    """The part of the picture that a new face changes: the crop, enlarged to even pixels, where chroma samples lie.

    still: (H, W, 3) uint8 RGB, H and W even, the avatar's own pixels. x, y: the crop's corner in the region, each 0 or
    1. size: the crop's side. left, top: the region's corner in the picture, both even.
    """

    still: NDArray[np.uint8]
    x: int
    y: int
    size: int
    left: int
    top: int

    @classmethod
    def of(cls, still: NDArray[np.uint8], crop: FaceBox) -> PasteRegion:
        """still: (720, 1280, 3) uint8 RGB. Raises FrameShapeError if the shape is wrong or the crop leaves it."""
        if still.shape != (FRAME_HEIGHT, FRAME_WIDTH, 3) or still.dtype != np.uint8:
            raise FrameShapeError(
                f"the still picture must be ({FRAME_HEIGHT}, {FRAME_WIDTH}, 3) uint8, not {still.shape} {still.dtype}"
            )
        right, bottom = crop.x + crop.size, crop.y + crop.size
        if crop.size < MIN_CROP:
            raise FrameShapeError(f"a crop box of {crop.size} pixels is too small; the minimum is {MIN_CROP} pixels")
        if crop.x < 0 or crop.y < 0 or right > FRAME_WIDTH or bottom > FRAME_HEIGHT:
            raise FrameShapeError(
                f"the crop box of {crop.size} pixels at ({crop.x}, {crop.y}) extends beyond the picture"
            )
        left, top = crop.x & ~1, crop.y & ~1
        region = still[top : bottom + 1 & ~1, left : right + 1 & ~1].copy()
        return cls(region, crop.x - left, crop.y - top, crop.size, left, top)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, both even."""
        return self.still.shape[0], self.still.shape[1]

    @property
    def crop(self) -> tuple[slice, slice]:
        """The crop's rows and columns in the region."""
        return slice(self.y, self.y + self.size), slice(self.x, self.x + self.size)


def border_mask(size: int) -> FloatArray:
    """(size, size) weights of the face: 1 inside, falling smoothly to exactly 0 at the edge pixels. Round corners."""
    half = (size - 1) / 2
    radius, feather = CORNER * size, max(FEATHER * size, 1.0)
    beyond = np.maximum(np.abs(np.arange(size) - half) - (half - radius), 0)
    depth = radius - np.hypot(beyond[:, None], beyond[None, :])
    t = np.clip(depth / feather, 0, 1)
    mask: FloatArray = (t * t * (3 - 2 * t)).astype(np.float32)
    return mask
