"""Stage 3, frame: the made face into the still 1280x720 picture (paper, section 3.4).

The still picture is converted to YUV 4:2:0 once for each avatar; per frame only the face's rectangle is. cv2 makes
the chroma of each 2x2 block from that block alone, so a rectangle on even pixels comes out exactly as it would in
the whole picture, and what lies outside never changes by a bit: the encoder skips it.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import RgbArray
from mien_shared.motion import FloatArray

FRAME_WIDTH = 1280
FRAME_HEIGHT = 720

#: Side of the smallest crop that has an inside within its soft border.
MIN_CROP = 16

#: Width of the soft border, and radius of its corners, as shares of the crop's side.
FEATHER = 0.04
CORNER = 0.12


class FrameShapeError(ValueError):
    """A picture, crop box or face whose shape the compositor cannot place."""


@dataclass(frozen=True, slots=True)
class CropBox:
    """The square of the still picture that the face replaces: left, top and side in pixels."""

    x: int
    y: int
    size: int


class Compositor:
    """One session's picture: the avatar at rest, and in it the face of the moment.

    The frame it returns is one buffer, written anew at each call: encode it before composing the next. (libx264 copies
    its input during encode(), also without lookahead; a test holds it to that.)
    """

    def __init__(self, still: RgbArray, crop: CropBox) -> None:
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
        self.crop = crop
        # The rectangle to convert: the crop grown to even pixels, which chroma samples sit on.
        left, top = crop.x & ~1, crop.y & ~1
        width, height = (right + 1 & ~1) - left, (bottom + 1 & ~1) - top
        self._region: RgbArray = still[top : top + height, left : left + width].copy()
        self._target = self._region[crop.y - top : crop.y - top + crop.size, crop.x - left : crop.x - left + crop.size]
        self._still_crop: RgbArray = self._target.copy()
        weight = border_mask(crop.size)
        self._border = [(part, weight[part], 1 - weight[part]) for part in _border_parts(weight)]
        self._region_yuv = np.empty((height * 3 // 2, width), np.uint8)
        self._frame = _yuv_frame(still)
        luma, *chroma = (_plane_pixels(plane) for plane in self._frame.planes)
        self._luma = luma[top : top + height, left : left + width]
        self._chroma = [c[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2] for c in chroma]

    def compose(self, face: RgbArray) -> av.VideoFrame:
        """Put the face, (S, S, 3) uint8 RGB of any S, into the picture: yuv420p, BT.601 limited range.

        The crop's outermost pixels stay the avatar's own. Raises FrameShapeError for a face of another shape.
        """
        if face.ndim != 3 or face.shape[0] != face.shape[1] or face.shape[2] != 3 or face.dtype != np.uint8:
            raise FrameShapeError(f"a face is (S, S, 3) uint8, not {face.shape} {face.dtype}")
        size = self.crop.size
        if face.shape[0] != size:
            shrinks = face.shape[0] > size
            face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        self._target[:] = face
        for part, face_weight, still_weight in self._border:
            cv2.blendLinear(face[part], self._still_crop[part], face_weight, still_weight, dst=self._target[part])
        height, width = self._region.shape[:2]
        cv2.cvtColor(self._region, cv2.COLOR_RGB2YUV_I420, dst=self._region_yuv)
        self._luma[:] = self._region_yuv[:height]
        chroma = self._region_yuv[height:].reshape(2, height // 2, width // 2)
        for plane, values in zip(self._chroma, chroma, strict=True):
            plane[:] = values
        return self._frame


def border_mask(size: int) -> FloatArray:
    """(size, size) weight of the face: 1 inside, smoothly down to exactly 0 on the outermost pixels, corners round."""
    half = (size - 1) / 2
    radius, feather = CORNER * size, max(FEATHER * size, 1.0)
    beyond = np.maximum(np.abs(np.arange(size) - half) - (half - radius), 0)
    depth = radius - np.hypot(beyond[:, None], beyond[None, :])
    t = np.clip(depth / feather, 0, 1)
    mask: FloatArray = (t * t * (3 - 2 * t)).astype(np.float32)
    return mask


def _border_parts(weight: FloatArray) -> list[tuple[slice, slice]]:
    """Four strips that hold every weight below 1: only they need blending."""
    size = len(weight)
    inset = next(i for i in range(size // 2 + 1) if (weight[i : size - i, i : size - i] == 1).all())
    inner, everything = slice(inset, size - inset), slice(0, size)
    low, high = slice(0, inset), slice(size - inset, size)
    return [(low, everything), (high, everything), (inner, low), (inner, high)]


def _yuv_frame(still: RgbArray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(cv2.cvtColor(still, cv2.COLOR_RGB2YUV_I420), format="yuv420p")


def _plane_pixels(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """A plane's pixels, (height, width), as a view into the frame."""
    pixels: NDArray[np.uint8] = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # stubs lack the buffer
    return pixels.reshape(plane.height, plane.line_size)[:, : plane.width]
