"""Where a face's crop belongs, computed from its keypoints. Pure geometry; in JavaScript clients/js/encoder/crop.js.

The layout below was measured once on 43 portraits with MediaPipe's Face Mesh. The mesh was grouped into ten keypoints
and the faces were framed as tools/landmarks does it. Its places are medians over the portraits, made symmetric. They
are in crop coordinates: [-1, 1], x right, y down, in a crop framed by the convention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mien_encoder.crop import CropSquare, Points
from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, FaceBox
from mien_shared.keypoints import FaceKeypoint, Keypoints

#: The framing convention of every crop, for clips and avatars alike: the crop's side in face heights (hairline to
#: chin). The face's centre lies 0.47 of the side below the crop's top.
CROP_SIDE_IN_FACE_HEIGHTS = 1.75

#: The smallest crop box of an avatar.
MIN_CROP_SIZE = 64
#: In a smaller crop a face cannot be recognised.
_SMALLEST_BOX_PX = 32.0

#: Positions of the ten keypoints in a crop that is framed by the convention.
TEN_KEYPOINTS: dict[FaceKeypoint, tuple[float, float]] = {
    FaceKeypoint.LEFT_BROW: (-0.269, -0.395),
    FaceKeypoint.RIGHT_BROW: (0.269, -0.395),
    FaceKeypoint.LEFT_EYE: (-0.220, -0.271),
    FaceKeypoint.RIGHT_EYE: (0.220, -0.271),
    FaceKeypoint.NOSE: (0.0, -0.035),
    FaceKeypoint.UPPER_LIP: (0.0, 0.164),
    FaceKeypoint.LOWER_LIP: (0.0, 0.223),
    FaceKeypoint.CHIN: (0.0, 0.428),
    FaceKeypoint.LEFT_CHEEK: (-0.409, 0.120),
    FaceKeypoint.RIGHT_CHEEK: (0.409, 0.120),
}
#: Crops follow these keypoints, which neither speech nor a blink moves much.
_STEADY = [
    FaceKeypoint.LEFT_BROW,
    FaceKeypoint.RIGHT_BROW,
    FaceKeypoint.LEFT_EYE,
    FaceKeypoint.RIGHT_EYE,
    FaceKeypoint.NOSE,
    FaceKeypoint.UPPER_LIP,
    FaceKeypoint.LEFT_CHEEK,
    FaceKeypoint.RIGHT_CHEEK,
]
_STEADY_LAYOUT: Points = np.array([TEN_KEYPOINTS[keypoint] for keypoint in _STEADY])


@dataclass(frozen=True, slots=True)
class LayoutFit:
    """The similarity that maps the layout to keypoints with the least squared error.

    A point (x, y) goes to (a x - b y + dx, b x + a y + dy). misfit: the root mean square of what is left, in half sides
    of the fitted crop.
    """

    a: float
    b: float
    dx: float
    dy: float
    misfit: float

    @property
    def scale(self) -> float:
        return math.hypot(self.a, self.b)


def fit_layout(keypoints: Keypoints) -> LayoutFit:
    """Fit the layout to a face's steady keypoints."""
    found = keypoints.points[_STEADY].astype(np.float64)
    layout_mean, found_mean = _STEADY_LAYOUT.mean(axis=0), found.mean(axis=0)
    s, t = _STEADY_LAYOUT - layout_mean, found - found_mean
    power = float((s * s).sum())
    a = float((s * t).sum()) / power
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / power
    turn = np.array([[a, -b], [b, a]])
    offset = found_mean - turn @ layout_mean
    left = found - (_STEADY_LAYOUT @ turn.T + offset)
    misfit = math.sqrt(float((left * left).sum()) / len(left)) / max(math.hypot(a, b), 1e-9)
    return LayoutFit(a, b, float(offset[0]), float(offset[1]), misfit)


def framing_of(fit: LayoutFit, box: CropSquare) -> CropSquare:
    """The crop for a face according to the framing convention, computed from the fit of its keypoints in `box`.

    The similarity that maps the layout to the keypoints maps the layout's crop to the new crop. Rotation is ignored,
    because crops are upright.
    """
    centre = box.to_picture(np.array([fit.dx, fit.dy]))
    return CropSquare.around(float(centre[0]), float(centre[1]), box.size * fit.scale)


@dataclass(frozen=True, slots=True)
class Change:
    """How far a face's crop has gone.

    shift: of the centre, along the longer axis, as a share of the side. growth: the absolute log of the growth.
    """

    shift: float
    growth: float


def change_of(box: CropSquare, target: CropSquare) -> Change:
    """How far a face's crop has gone from `box` to `target`."""
    (x, y), (to_x, to_y) = box.centre, target.centre
    shift = max(abs(to_x - x), abs(to_y - y)) / box.size
    return Change(shift, abs(math.log(target.size / box.size)) if target.size > 0 else math.inf)


def is_usable(box: CropSquare, width: int, height: int) -> bool:
    """Whether a crop is large enough, not larger than twice the picture, and has its centre in the picture."""
    x, y = box.centre
    fits = _SMALLEST_BOX_PX <= box.size <= 2 * max(width, height)
    return fits and 0 <= x <= width and 0 <= y <= height


def crop_box(square: CropSquare) -> FaceBox:
    """A crop as a box inside the still picture, on even pixels (for 4:2:0 chroma), at least MIN_CROP_SIZE wide."""
    size = 2 * round(min(max(square.size, MIN_CROP_SIZE), PICTURE_HEIGHT) / 2)
    x, y = square.centre
    return FaceBox(
        x=_even_within(x - size / 2, PICTURE_WIDTH - size),
        y=_even_within(y - size / 2, PICTURE_HEIGHT - size),
        size=size,
    )


def _even_within(value: float, largest: int) -> int:
    return 2 * round(min(max(value, 0.0), largest) / 2)
