"""Where a face goes on in the still 1280x720 picture, and how softly. No codec here: device engines read it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import FloatArray

if TYPE_CHECKING:  # at run time the avatar store's packages are not needed here
    from mien_shared.avatars import FaceBox

FRAME_WIDTH = 1280
FRAME_HEIGHT = 720

#: Side of the smallest crop that has an inside within its soft border.
MIN_CROP = 16

#: Width of the soft border, and radius of its corners, as shares of the crop's side.
FEATHER = 0.04
CORNER = 0.12


class FrameShapeError(ValueError):
    """A picture, crop box or face whose shape the compositor cannot place."""


@dataclass(frozen=True, slots=True, eq=False)
class PasteRegion:
    """The crop grown to even pixels, which chroma samples sit on: all of the picture that a new face changes.

    still: (H, W, 3) uint8 RGB, H and W even, the avatar's own pixels. x, y: the crop's corner in it, 0 or 1 each.
    size: the crop's side. left, top: the region's corner in the picture, both even.
    """

    still: NDArray[np.uint8]
    x: int
    y: int
    size: int
    left: int
    top: int

    @classmethod
    def of(cls, still: NDArray[np.uint8], crop: FaceBox) -> PasteRegion:
        """still: (720, 1280, 3) uint8 RGB. Raises FrameShapeError if it is not, or if the crop leaves it."""
        if still.shape != (FRAME_HEIGHT, FRAME_WIDTH, 3) or still.dtype != np.uint8:
            raise FrameShapeError(
                f"the still picture is ({FRAME_HEIGHT}, {FRAME_WIDTH}, 3) uint8, not {still.shape} {still.dtype}"
            )
        right, bottom = crop.x + crop.size, crop.y + crop.size
        if crop.size < MIN_CROP:
            raise FrameShapeError(f"a crop box of {crop.size} pixels is too small, the least is {MIN_CROP}")
        if crop.x < 0 or crop.y < 0 or right > FRAME_WIDTH or bottom > FRAME_HEIGHT:
            raise FrameShapeError(f"crop box {crop.size} at ({crop.x}, {crop.y}) leaves the picture")
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
    """(size, size) weight of the face: 1 inside, smoothly down to exactly 0 on the outermost pixels, corners round."""
    half = (size - 1) / 2
    radius, feather = CORNER * size, max(FEATHER * size, 1.0)
    beyond = np.maximum(np.abs(np.arange(size) - half) - (half - radius), 0)
    depth = radius - np.hypot(beyond[:, None], beyond[None, :])
    t = np.clip(depth / feather, 0, 1)
    mask: FloatArray = (t * t * (3 - 2 * t)).astype(np.float32)
    return mask
