"""Computes a face's crop and a layout of its ten keypoints from a detected face. Pure geometry.

The constants below were measured once on 43 portraits with both MTCNN and MediaPipe's Face Mesh. The mesh was grouped
into ten keypoints and the faces were framed as tools/landmarks does it. The constants are medians over the portraits,
made symmetric. They are in crop coordinates: [-1, 1], x right, y down, in a crop framed by the convention below.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, FaceBox
from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, Keypoints

Points = NDArray[np.float64]
RgbArray = NDArray[np.uint8]

#: The framing convention of every crop, for clips and avatars alike: the crop's side in face heights (hairline to
#: chin), and the distance from the crop's top to the face's centre, as a share of the side.
CROP_SIDE_IN_FACE_HEIGHTS = 1.75
FACE_CENTRE_FROM_TOP = 0.47

#: Face height divided by the height of MTCNN's box, which reaches above the hairline (0.83 to 0.94 for 80 % of faces).
FACE_HEIGHT_IN_BOX = 0.88
#: Distance of the face's centre below the box's centre, in box heights.
FACE_CENTRE_BELOW_BOX_CENTRE = 0.055

MIN_CROP_SIZE = 64

#: Positions of MTCNN's five landmarks in a crop: eyes, nose, corners of the mouth.
FIVE_LANDMARKS: Points = np.array([(-0.222, -0.265), (0.222, -0.265), (0.0, 0.009), (-0.206, 0.203), (0.206, 0.203)])
LEFT_EYE, RIGHT_EYE, NOSE, MOUTH_LEFT, MOUTH_RIGHT = range(5)

#: Positions of the ten keypoints in the same crops.
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
#: Keypoints that coincide with a landmark; the residual of the fit at this landmark is added to them. The corners of
#: the mouth are the least certain landmarks: with their residual, the error of the lips was 1.5 times as large, so the
#: lips use the fit alone.
_OWN_LANDMARK = {
    FaceKeypoint.LEFT_EYE: LEFT_EYE,
    FaceKeypoint.RIGHT_EYE: RIGHT_EYE,
    FaceKeypoint.NOSE: NOSE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face as the detector reports it, in pixels of the searched picture.

    landmarks: (5, 2): the eyes, the tip of the nose and the corners of the mouth; left means left in the picture.
    """

    x: float
    y: float
    width: float
    height: float
    confidence: float
    landmarks: Points

    def moved(self, scale: float, dx: float, dy: float) -> Face:
        """The same face in a picture scaled by `scale` and then shifted."""
        return Face(
            self.x * scale + dx,
            self.y * scale + dy,
            self.width * scale,
            self.height * scale,
            self.confidence,
            self.landmarks * scale + (dx, dy),
        )


@dataclass(frozen=True, slots=True)
class CropWish:
    """The ideal crop square of a face: centre and side in pixels. It ignores the borders of the picture."""

    centre_x: float
    centre_y: float
    side: float


@dataclass(frozen=True, slots=True)
class CropSquare:
    """Position of a crop in a picture, in fractional pixels. It may reach beyond the picture's edges."""

    x: float
    y: float
    size: float

    @classmethod
    def around(cls, wish: CropWish) -> CropSquare:
        """The square with the centre and side of a CropWish."""
        return cls(wish.centre_x - wish.side / 2, wish.centre_y - wish.side / 2, wish.side)

    def wish(self) -> CropWish:
        """The same square by its centre and side, as crop_box takes it."""
        return CropWish(self.x + self.size / 2, self.y + self.size / 2, self.size)

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


def cut(rgb: RgbArray, square: CropSquare, size: int) -> RgbArray:
    """The square as (size, size, 3). Outside the picture, its edge pixels are repeated.

    A square that is larger than `size` is averaged and not only sampled, because small networks see aliasing as motion.
    """
    scale = size / square.size
    if scale < 1:
        # First average by an integer factor, to between one and two times `size`. Then resample for the rest of the
        # scale and for the sub-pixel shift. Both steps are cheap.
        step = max(1, int(1 / scale))
        left, top = int(np.floor(square.x)), int(np.floor(square.y))
        side = (int(np.ceil(square.size)) + step) // step * step + step
        window = _window(rgb, left, top, side)
        small = cv2.resize(window, (side // step, side // step), interpolation=cv2.INTER_AREA)
        rgb, square = small, CropSquare((square.x - left) / step, (square.y - top) / step, square.size / step)
        scale = size / square.size
    # Pixel centres lie at half coordinates: the crop's pixel i shows position (i + 0.5) / scale - 0.5 of the square.
    shift = 0.5 / scale - 0.5
    matrix = np.array([[1 / scale, 0, square.x + shift], [0, 1 / scale, square.y + shift]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _window(rgb: RgbArray, left: int, top: int, side: int) -> RgbArray:
    """The square of `side` pixels at (left, top). Outside the picture, its edge pixels are repeated."""
    height, width = rgb.shape[:2]
    x0, y0 = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    x1, y1 = max(min(left + side, width), x0 + 1), max(min(top + side, height), y0 + 1)
    inside = rgb[y0:y1, x0:x1]
    before_y, before_x = max(y0 - top, 0), max(x0 - left, 0)
    after_y, after_x = max(top + side - y1, 0), max(left + side - x1, 0)
    if not (before_x or before_y or after_x or after_y):
        return inside
    padded = cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
    return np.asarray(padded[:side, :side], np.uint8)


def crop_wish(face: Face) -> CropWish:
    """The square around a face according to the framing convention."""
    side = CROP_SIDE_IN_FACE_HEIGHTS * FACE_HEIGHT_IN_BOX * face.height
    face_centre_y = face.y + (0.5 + FACE_CENTRE_BELOW_BOX_CENTRE) * face.height
    return CropWish(
        centre_x=face.x + face.width / 2,
        centre_y=face_centre_y + (0.5 - FACE_CENTRE_FROM_TOP) * side,
        side=side,
    )


def crop_box(wish: CropWish) -> FaceBox:
    """The wish as a box inside the still picture, on even pixels (for 4:2:0 chroma), at least MIN_CROP_SIZE wide."""
    size = 2 * round(min(max(wish.side, MIN_CROP_SIZE), PICTURE_HEIGHT) / 2)
    return FaceBox(
        x=_even_within(wish.centre_x - size / 2, PICTURE_WIDTH - size),
        y=_even_within(wish.centre_y - size / 2, PICTURE_HEIGHT - size),
        size=size,
    )


def _even_within(value: float, largest: int) -> int:
    return 2 * round(min(max(value, 0.0), largest) / 2)


def source_keypoints(face: Face, box: FaceBox) -> Keypoints:
    """The ten keypoints of a face in its crop, computed from its five landmarks.

    A similarity (least squares over the five landmarks) maps the measured layout to the face. Its matrix is also the
    Jacobian of every keypoint, because the layout's Jacobians are unit matrices. Mean distance to Face Mesh's keypoints
    on the 43 portraits: 0.036 of a crop's half side.
    """
    found = (face.landmarks - (box.x, box.y)) * (2 / box.size) - 1
    matrix, offset = similarity(FIVE_LANDMARKS, found)
    points = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint]) @ matrix.T + offset
    residual = found - (FIVE_LANDMARKS @ matrix.T + offset)
    for keypoint, landmark in _OWN_LANDMARK.items():
        points[keypoint] += residual[landmark]
    jacobians = np.tile(matrix, (NUM_KEYPOINTS, 1, 1))
    return Keypoints(points.astype(np.float32), jacobians.astype(np.float32))


def similarity(source: Points, target: Points) -> tuple[Points, Points]:
    """The rotation, scale and shift that map `source` to `target`, both (N, 2), with the least squared error."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    power = float((s * s).sum())
    a = float((s * t).sum()) / power
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / power
    matrix = np.array([[a, -b], [b, a]])
    return matrix, target_mean - matrix @ source_mean
