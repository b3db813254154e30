"""The mouth of `warp`: if the lips open wider than the avatar's, the part of the face below the line between the lips
moves down, and the inside of a mouth is painted into the gap, because no warp of a closed mouth could show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import RgbArray
from mien_generator.face.curves import smoothstep, softening
from mien_generator.face.features import Feature
from mien_generator.face.head import Affine, Box, Samples, seen
from mien_generator.face.layout import Mouth
from mien_shared.keypoints import FaceKeypoint, FloatArray

#: Colours of the inside of a mouth in the light of a studio portrait.
_THROAT_RGB = np.array([52, 20, 22], np.float32)
_TONGUE_RGB = np.array([122, 52, 54], np.float32)
_TEETH_RGB = np.array([196, 182, 172], np.float32)

#: The painted inside: its side in pixels, and the depths of its first and last row, in half widths of the mouth.
_INSIDE_SIDE = 96
_INSIDE_TOP, _INSIDE_BOTTOM = -0.05, 0.70


@dataclass(frozen=True, slots=True)
class MouthModel:
    """What the mouth needs of an avatar. lower_y, chin_y: heights of the lower lip and the chin.

    inside: (_INSIDE_SIDE, _INSIDE_SIDE, 4) picture of the inside of the mouth. Columns go from the left corner to the
    right, rows from _INSIDE_TOP to _INSIDE_BOTTOM. Below that it does not change.
    """

    line: Mouth
    lower_y: float
    chin_y: float
    inside: NDArray[np.uint8]

    @classmethod
    def of(cls, rgb: RgbArray, line: Mouth, points: FloatArray) -> MouthModel:
        lower_y, chin_y = float(points[FaceKeypoint.LOWER_LIP, 1]), float(points[FaceKeypoint.CHIN, 1])
        return cls(line, lower_y, chin_y, _paint_inside(line, _skin_shade(rgb, line)))


@dataclass(frozen=True, slots=True)
class Gap:
    """The inside of the mouth in one frame: a rectangle of the face, and how much of each pixel is covered."""

    rows: slice
    columns: slice
    cover: FloatArray  # (h, w) 0..1
    depth: FloatArray  # (h, w) below the upper lip, in half widths of the mouth
    across: FloatArray  # (h, w) -1 at the left corner, 1 at the right

    def paint(self, picture: NDArray[np.uint8], inside: NDArray[np.uint8]) -> None:
        """Paint the inside of the mouth into the picture (S, S, 4), in place."""
        part = picture[self.rows, self.columns]
        half = 0.5 * (_INSIDE_SIDE - 1)
        per_depth = 2 * half / (_INSIDE_BOTTOM - _INSIDE_TOP)
        columns, rows = self.across * half + half, self.depth * per_depth - _INSIDE_TOP * per_depth
        shown = cv2.remap(inside, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.blendLinear(shown, part, self.cover, 1 - self.cover, dst=part)


@dataclass(frozen=True, slots=True)
class OpenMouth:
    """The lowered jaw in one frame: a rectangle of the face, and where its pixels come from.

    at: (2, h, w) where each pixel comes from before the features' motion, in the unit of `lookup` (see open_mouth).
    """

    rows: slice
    columns: slice
    at: FloatArray
    gap: Gap


def split_opening(mouth: MouthModel, features: list[Feature]) -> float:
    """Split the opening of the lips off the lower lip's shift, in place. Returns the opening (crop, >= 0)."""
    upper, lower = features[FaceKeypoint.UPPER_LIP], features[FaceKeypoint.LOWER_LIP]
    opening = upper.shift_y - lower.shift_y  # shifts point from the frame to the avatar
    if opening <= 0:
        return 0.0
    features[FaceKeypoint.LOWER_LIP] = lower._replace(y=lower.y - opening, shift_y=upper.shift_y)
    return opening * softening(opening * opening, max(0.6 * (mouth.chin_y - mouth.lower_y), 0.02))


def open_mouth(
    mouth: MouthModel, head: Affine, samples: Samples, lookup: FloatArray, unit: float, upper: Feature, opening: float
) -> OpenMouth | None:
    """The jaw's map behind the head's. None if the mouth is outside the face.

    samples: the bilinear forms at every pixel. lookup: matrices C_i of the head's map in another unit, of which `unit`
    make one of the crop's. upper: the upper lip. opening: crop coordinates.
    """
    line, size = mouth.line, len(samples.rows)
    centre_x, centre_y = line.centre_x - upper.shift_x, line.centre_y - upper.shift_y
    reach_y = max(mouth.chin_y - line.centre_y, 1.5 * opening)
    rise = abs(line.tilt) + abs(line.bend)
    box: Box = (centre_x - line.half_width, centre_y - rise, centre_x + line.half_width, centre_y + rise + opening)
    rows, columns = seen(head, (*box[:3], box[3] + reach_y), size)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    # (x - centre_x) / half_width and y - centre_y of the head's map; of the latter, the line's tilt is subtracted.
    forms = np.concatenate(
        [head.coefficients((1 / line.half_width, 1), (-centre_x / line.half_width, -centre_y)), lookup]
    )
    forms[1] -= np.float32(line.tilt) * forms[0]
    maps = samples.part(rows, columns).map(forms)
    across, below, at = maps[0], maps[1], maps[2:]
    square = across * across
    below -= line.bend * square
    drop = np.maximum(opening - opening * square, 0)
    above_lip = drop - below
    # Below the gap the jaw's displacement fades linearly. The slope of the map is 1 + drop / reach there: no fold.
    fading = drop * np.minimum(1 + above_lip * (1 / reach_y), 1)
    at[1] -= np.maximum(np.minimum(below, fading), 0) * unit
    # Only the upper part of the rectangle can be in the gap.
    upper_rows = slice(rows.start, max(min(seen(head, box, size)[0].stop, rows.stop), rows.start + 1))
    n = upper_rows.stop - upper_rows.start
    cover = _cover(below[:n], above_lip[:n], drop[:n], 2 / (size - 1))
    return OpenMouth(rows, columns, at, Gap(upper_rows, columns, cover, below[:n] / line.half_width, across[:n]))


def _cover(below: FloatArray, above_lip: FloatArray, drop: FloatArray, pixel: float) -> FloatArray:
    """How much of each pixel is in the gap. Its edges are soft over 1.5 pixels, and a thin gap is transparent."""
    inside = np.minimum(np.maximum(np.minimum(below, above_lip) * (1 / (1.5 * pixel)) + 0.5, 0), 1)
    cover: FloatArray = inside * np.minimum(drop * (1 / (3 * pixel)), 1)
    return cover


def _paint_inside(line: Mouth, shade: float) -> NDArray[np.uint8]:
    """The inside of a mouth: dark throat, lighter tongue, upper teeth in the shadow. shade: see `_skin_shade`."""
    depth = np.linspace(_INSIDE_TOP, _INSIDE_BOTTOM, _INSIDE_SIDE)[:, None]
    across = np.linspace(-1, 1, _INSIDE_SIDE)[None]
    middle = 1 - np.abs(across)
    tongue = (smoothstep(depth, 0.15, 0.65) * smoothstep(middle, 0.1, 0.6))[..., None]
    inside = _THROAT_RGB + tongue * (_TONGUE_RGB - _THROAT_RGB)
    if line.closed:
        row = smoothstep(depth, -0.02, 0.09) * (1 - smoothstep(depth + 0.10 * across**2, 0.13, 0.20))
        teeth = (0.8 * row * smoothstep(middle, 0.12, 0.45))[..., None]
        inside = inside + teeth * (_TEETH_RGB - inside)
    rgb = np.clip(np.rint(shade * inside), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), np.uint8)


def _skin_shade(rgb: RgbArray, line: Mouth) -> float:
    """Brightness of the face around the mouth, 0.3..1.2, so that the inside of the mouth matches the light."""
    scale = 0.5 * (rgb.shape[0] - 1)
    x, y, r = (line.centre_x + 1) * scale, (line.centre_y + 1) * scale, line.half_width * scale
    patch = rgb[max(0, int(y - r)) : int(y + r) + 1, max(0, int(x - r)) : int(x + r) + 1]
    return float(np.clip(np.median(patch) / 150, 0.3, 1.2)) if patch.size else 1.0
