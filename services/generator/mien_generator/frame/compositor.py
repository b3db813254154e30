"""Stage 3, frame: pastes the face into the still 1280x720 picture (paper, section 3.4).

The still picture is converted to YUV 4:2:0 once per session; each frame converts only the face's rectangle. cv2
computes the chroma of each 2x2 block from that block alone. So a rectangle on even pixels gives exactly the same result
as the whole picture would, and not one bit outside it changes. The H.264 encoder skips those macroblocks.
"""

from __future__ import annotations

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import FacePicture, RgbArray, YuvPatch
from mien_generator.face.picture import pasting
from mien_generator.face.region import FrameShapeError, PasteRegion, border_mask
from mien_shared.avatars import FaceBox
from mien_shared.keypoints import FloatArray


class Compositor:
    """One session's picture: the avatar at rest with the current face in it.

    region: the part of the picture that a face changes. `compose` always returns the same buffer and overwrites it at
    each call: encode the frame before composing the next. (libx264 copies its input during encode(), also without
    lookahead; a test checks that.)
    """

    def __init__(self, still: RgbArray, crop: FaceBox) -> None:
        """still: (720, 1280, 3) uint8 RGB. Raises FrameShapeError if the shape is wrong or the crop leaves it."""
        self.region = PasteRegion.of(still, crop)
        height, width = self.region.shape
        self._region = self.region.still.copy()
        self._target = self._region[self.region.crop]
        self._still_crop: RgbArray = self._target.copy()
        weight = border_mask(crop.size)
        self._border = [(part, weight[part], 1 - weight[part]) for part in _border_parts(weight)]
        self._region_yuv = np.empty((height * 3 // 2, width), np.uint8)
        self._frame = _yuv_frame(still)
        left, top = self.region.left, self.region.top
        luma, *chroma = (_plane_pixels(plane) for plane in self._frame.planes)
        self._luma = luma[top : top + height, left : left + width]
        self._u, self._v = (c[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2] for c in chroma)

    def compose(self, face: FacePicture, share: float = 1.0) -> av.VideoFrame:
        """Paste the face into the picture: yuv420p, BT.601 limited range.

        face: (S, S, 3) uint8 RGB of any S, whose outermost pixels are replaced by the avatar's own; or a YuvPatch of
        the region, which the device has finished. share: weight of the face; the rest is the previous content of the
        picture. A share below 1 fades from one tier's faces to another's. Raises FrameShapeError for any other shape.
        """
        self._write(face if isinstance(face, YuvPatch) else self._finished(face), share)
        return self._frame

    def _finished(self, face: RgbArray) -> YuvPatch:
        """Scale, feather and convert a face. A device does the same for its own faces."""
        if face.ndim != 3 or face.shape[0] != face.shape[1] or face.shape[2] != 3 or face.dtype != np.uint8:
            raise FrameShapeError(f"a face must be (S, S, 3) uint8, not {face.shape} {face.dtype}")
        side, size, target = len(face), self.region.size, self._target
        if side == size:
            target[:] = face
        else:
            cv2.resize(face, (size, size), dst=target, interpolation=pasting(side, size))
        for part, face_weight, still_weight in self._border:
            cv2.blendLinear(target[part], self._still_crop[part], face_weight, still_weight, dst=target[part])
        height, width = self.region.shape
        cv2.cvtColor(self._region, cv2.COLOR_RGB2YUV_I420, dst=self._region_yuv)
        u, v = self._region_yuv[height:].reshape(2, height // 2, width // 2)
        return YuvPatch(self._region_yuv[:height], u, v)

    def _write(self, patch: YuvPatch, share: float) -> None:
        planes = (patch.luma, self._luma), (patch.u, self._u), (patch.v, self._v)
        for values, plane in planes:
            if values.shape != plane.shape or values.dtype != np.uint8:
                raise FrameShapeError(
                    f"a patch of this picture must have planes of {self._luma.shape} and {self._u.shape} uint8, "
                    f"not {values.shape} {values.dtype}"
                )
        for values, plane in planes:
            if share < 1:
                cv2.addWeighted(values, share, plane, 1 - share, 0, dst=plane)
            else:
                plane[:] = values


def _border_parts(weight: FloatArray) -> list[tuple[slice, slice]]:
    """The four strips with all weights below 1. Only they need blending."""
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
