"""Fits an upload into the 1280x720 still picture so that the whole head is visible. Pure: arrays in, arrays out.

The picture fills the frame if it can. If it is too narrow, a blurred, darkened copy of it is the background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien_encoder.crop import CropSquare
from mien_gateway.image import RgbPicture
from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH

_ASPECT = PICTURE_WIDTH / PICTURE_HEIGHT

#: A face crop smaller than this in the still picture is enlarged, as far as the upload has enough pixels.
_WANTED_CROP = 320
_NEARER_UPSCALE = 1.5
#: The largest enlargement of the whole picture. A smaller picture gets a smaller pane instead of more blur.
_MAX_UPSCALE = 3.0
#: Top and bottom are cut only if the window stays at least this many times as high as the head.
_HEADROOM = 1.12
#: Vertical position of the head crop's centre, where it can be chosen: speakers sit in the upper half.
_CROP_CENTRE_FROM_TOP = 0.45

_FEATHER_PX = 28
_BACKDROP_WIDTH, _BACKDROP_HEIGHT = 64, 36
_BACKDROP_BLUR_PX = 3.0
_BACKDROP_BRIGHTNESS = 0.55


@dataclass(frozen=True, slots=True)
class Placement:
    """A window of the upload and its place in the still picture: scaled by `scale`, with its top left at (left, top).

    x, y, width, height: the window in the upload's pixels. pane_width, pane_height: its size in the still picture.
    """

    x: int
    y: int
    width: int
    height: int
    scale: float
    left: int
    top: int
    pane_width: int
    pane_height: int

    def place(self, square: CropSquare) -> CropSquare:
        """Convert a crop from the upload's pixels to the still picture's pixels."""
        return square.moved(self.scale, self.left - self.x * self.scale, self.top - self.y * self.scale)


def choose_window(width: int, height: int, head: CropSquare) -> Placement:
    """Choose the part of a (height, width) upload that the still picture shows. head: the crop around the face."""
    window_h = float(height)
    if head.size * PICTURE_HEIGHT / height < _WANTED_CROP:
        nearest = PICTURE_HEIGHT / _NEARER_UPSCALE
        window_h = min(window_h, max(head.size * PICTURE_HEIGHT / _WANTED_CROP, nearest))
    window_w = min(float(width), window_h * _ASPECT)
    if window_w < window_h * _ASPECT:  # too narrow to fill the frame at this height
        full_bleed = window_w / _ASPECT
        if full_bleed >= _HEADROOM * head.size:
            window_h = full_bleed
        else:  # a square pane, or taller if the head is
            window_h = min(window_h, max(window_w, _HEADROOM * head.size))
    w, h = max(1, round(window_w)), max(1, round(window_h))
    scale = min(PICTURE_HEIGHT / h, PICTURE_WIDTH / w, _MAX_UPSCALE)
    pane_w, pane_h = min(PICTURE_WIDTH, max(1, round(w * scale))), min(PICTURE_HEIGHT, max(1, round(h * scale)))
    if PICTURE_WIDTH - pane_w < 4:  # rounding must not leave a thin strip of background
        pane_w = PICTURE_WIDTH
    if PICTURE_HEIGHT - pane_h < 4:
        pane_h = PICTURE_HEIGHT
    return Placement(
        x=_within(head.centre[0] - w / 2, width - w),
        y=_within(head.centre[1] - _CROP_CENTRE_FROM_TOP * h, height - h),
        width=w,
        height=h,
        scale=scale,
        left=(PICTURE_WIDTH - pane_w) // 2,
        top=(PICTURE_HEIGHT - pane_h) // 2,
        pane_width=pane_w,
        pane_height=pane_h,
    )


def _within(value: float, largest: int) -> int:
    return round(min(max(value, 0.0), largest))


def compose(rgb: RgbPicture, placement: Placement) -> RgbPicture:
    """Make the still picture, (720, 1280, 3) RGB, from the upload, (H, W, 3) RGB."""
    window = rgb[placement.y : placement.y + placement.height, placement.x : placement.x + placement.width]
    pane = _resized(window, placement.pane_width, placement.pane_height)
    if pane.shape == (PICTURE_HEIGHT, PICTURE_WIDTH, 3):
        return np.asarray(pane, np.uint8)
    picture = _backdrop(window).astype(np.float32)
    area = picture[
        placement.top : placement.top + placement.pane_height, placement.left : placement.left + placement.pane_width
    ]
    opacity = np.minimum.outer(
        _fade(placement.pane_height, placement.pane_height < PICTURE_HEIGHT),
        _fade(placement.pane_width, placement.pane_width < PICTURE_WIDTH),
    )[..., None]
    area += opacity * (pane - area)
    return np.asarray(picture.round().clip(0, 255), np.uint8)


def _fade(length: int, soft: bool) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Opacity, (length,): 1 inside; if `soft`, it falls smoothly to 0 at both ends."""
    inward = np.minimum(np.arange(length), np.arange(length)[::-1]).astype(np.float32) + 0.5
    t = np.clip(inward / min(_FEATHER_PX, length / 4), 0, 1) if soft else np.ones(length, np.float32)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _backdrop(window: RgbPicture) -> RgbPicture:
    """The window enlarged to the size of the picture, strongly blurred and darkened."""
    height, width = window.shape[:2]
    slice_h = min(height, max(1, round(width / _ASPECT)))
    top = (height - slice_h) // 2
    tiny = _resized(window[top : top + slice_h], _BACKDROP_WIDTH, _BACKDROP_HEIGHT).astype(np.float32)
    soft = _blurred(tiny * _BACKDROP_BRIGHTNESS)
    size = (PICTURE_WIDTH, PICTURE_HEIGHT)
    planes = [np.asarray(Image.fromarray(soft[..., c]).resize(size, Image.Resampling.BICUBIC)) for c in range(3)]
    return np.asarray(np.stack(planes, axis=-1).round().clip(0, 255), np.uint8)


def _resized(rgb: RgbPicture, width: int, height: int) -> RgbPicture:
    """A picture of another size, averaged where it shrinks. Pillow looks at as many pixels as the scale needs."""
    shrinks = height < rgb.shape[0]
    filtering = Image.Resampling.HAMMING if shrinks else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(rgb).resize((width, height), filtering), np.uint8)


def _blurred(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur the backdrop, (H, W, 3), by a Gaussian of _BACKDROP_BLUR_PX. At its edges the picture is mirrored."""
    reach = round(4 * _BACKDROP_BLUR_PX)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _BACKDROP_BLUR_PX) ** 2)
    weights /= weights.sum()
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    down = sum(weight * padded[i : i + height] for i, weight in enumerate(weights))
    return np.asarray(sum(weight * down[:, i : i + width] for i, weight in enumerate(weights)), np.float32)
