"""From a found face to its crop box and to its ten keypoints by layout. Pure geometry.

The constants below were measured once on 43 portraits with both MTCNN and MediaPipe's Face Mesh, grouped into ten
keypoints and framed as tools/landmarks does it: medians over the portraits, made symmetric. They are in crop
coordinates, [-1, 1], x right, y down, of a crop framed as the convention below says.
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

#: The framing of every crop, of clips and avatars alike: its side in face heights (hairline to chin), and how far
#: below its top the face's centre lies, in sides.
CROP_SIDE_IN_FACE_HEIGHTS = 1.75
FACE_CENTRE_FROM_TOP = 0.47

#: MTCNN's box beside the face height: the box reaches above the hairline (0.83 to 0.94 for four faces of five).
FACE_HEIGHT_IN_BOX = 0.88
#: How far the face's centre lies below the box's, in box heights.
FACE_CENTRE_BELOW_BOX_CENTRE = 0.055

MIN_CROP_SIZE = 64

#: Where MTCNN's five landmarks lie in a crop: eyes, nose, corners of the mouth.
FIVE_LANDMARKS: Points = np.array([(-0.222, -0.265), (0.222, -0.265), (0.0, 0.009), (-0.206, 0.203), (0.206, 0.203)])
LEFT_EYE, RIGHT_EYE, NOSE, MOUTH_LEFT, MOUTH_RIGHT = range(5)

#: Where the ten keypoints lie in the same crops.
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
#: Keypoints that lie on a landmark of their own are moved by what the fit left over there. The mouth's corners are
#: the least certain of the five (lips came out worse by half that way), so the lips take the fit as it is.
_OWN_LANDMARK = {
    FaceKeypoint.LEFT_EYE: LEFT_EYE,
    FaceKeypoint.RIGHT_EYE: RIGHT_EYE,
    FaceKeypoint.NOSE: NOSE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face as the detector reports it, in pixels of the picture it was found in.

    landmarks: (5, 2): the eyes, the nose's tip and the corners of the mouth; left is the picture's left.
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
    """The crop square a face asks for, wherever the picture ends: centre and side in pixels."""

    centre_x: float
    centre_y: float
    side: float


@dataclass(frozen=True, slots=True)
class CropSquare:
    """Where a crop lies in a picture, in its pixels and fractions of them; it may reach beyond the picture's edges."""

    x: float
    y: float
    size: float

    @classmethod
    def around(cls, wish: CropWish) -> CropSquare:
        """The square that was wished for."""
        return cls(wish.centre_x - wish.side / 2, wish.centre_y - wish.side / 2, wish.side)

    def wish(self) -> CropWish:
        """Back to what a box of a still picture is chosen by."""
        return CropWish(self.x + self.size / 2, self.y + self.size / 2, self.size)

    def to_crop(self, points: NDArray[np.floating]) -> Points:
        """(..., 2) pixels of the picture to crop coordinates: the square spans [-1, 1]."""
        return np.asarray((points - (self.x, self.y)) * (2 / self.size) - 1, np.float64)

    def to_picture(self, points: NDArray[np.floating]) -> Points:
        """(..., 2) crop coordinates to pixels of the picture."""
        return np.asarray((points + 1.0) * (self.size / 2) + (self.x, self.y), np.float64)

    def towards(self, other: CropSquare, amount: float) -> CropSquare:
        """Part of the way to another square: 0 stays, 1 is there."""
        return CropSquare(
            self.x + amount * (other.x - self.x),
            self.y + amount * (other.y - self.y),
            self.size + amount * (other.size - self.size),
        )


def cut(rgb: RgbArray, square: CropSquare, size: int) -> RgbArray:
    """The square as (size, size, 3); what lies beyond the picture repeats its edge.

    A square that is larger than `size` is averaged, never sampled: small networks see aliasing as motion.
    """
    scale = size / square.size
    if scale < 1:
        # Twice the wanted detail is kept and the sub-pixel shift taken from that, so that both steps stay cheap.
        step = max(1, int(1 / scale))
        left, top = int(np.floor(square.x)), int(np.floor(square.y))
        side = (int(np.ceil(square.size)) + step) // step * step + step
        window = _window(rgb, left, top, side)
        small = cv2.resize(window, (side // step, side // step), interpolation=cv2.INTER_AREA)
        rgb, square = small, CropSquare((square.x - left) / step, (square.y - top) / step, square.size / step)
        scale = size / square.size
    # Pixel centres lie at half coordinates: the crop's pixel i shows what is at (i + 0.5) / scale - 0.5 of the square.
    shift = 0.5 / scale - 0.5
    matrix = np.array([[1 / scale, 0, square.x + shift], [0, 1 / scale, square.y + shift]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _window(rgb: RgbArray, left: int, top: int, side: int) -> RgbArray:
    """`side` pixels square of the picture from (left, top), its edges repeated beyond it."""
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
    """The square around a face by the framing convention."""
    side = CROP_SIDE_IN_FACE_HEIGHTS * FACE_HEIGHT_IN_BOX * face.height
    face_centre_y = face.y + (0.5 + FACE_CENTRE_BELOW_BOX_CENTRE) * face.height
    return CropWish(
        centre_x=face.x + face.width / 2,
        centre_y=face_centre_y + (0.5 - FACE_CENTRE_FROM_TOP) * side,
        side=side,
    )


def crop_box(wish: CropWish) -> FaceBox:
    """The wish as a box of the still picture: inside it, on even pixels (4:2:0 chroma), at least MIN_CROP_SIZE."""
    size = 2 * round(min(max(wish.side, MIN_CROP_SIZE), PICTURE_HEIGHT) / 2)
    return FaceBox(
        x=_even_within(wish.centre_x - size / 2, PICTURE_WIDTH - size),
        y=_even_within(wish.centre_y - size / 2, PICTURE_HEIGHT - size),
        size=size,
    )


def _even_within(value: float, largest: int) -> int:
    return 2 * round(min(max(value, 0.0), largest) / 2)


def source_keypoints(face: Face, box: FaceBox) -> Keypoints:
    """The ten keypoints of a face in its crop, from the five landmarks found.

    A similarity (least squares over the five) takes the measured layout to the face; it also is every keypoint's
    Jacobian, for the layout's own are unit matrices. Mean distance to Face Mesh's keypoints on those 43 portraits:
    0.036 of a crop's half side.
    """
    found = (face.landmarks - (box.x, box.y)) * (2 / box.size) - 1
    matrix, offset = similarity(FIVE_LANDMARKS, found)
    points = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint]) @ matrix.T + offset
    left_over = found - (FIVE_LANDMARKS @ matrix.T + offset)
    for keypoint, landmark in _OWN_LANDMARK.items():
        points[keypoint] += left_over[landmark]
    jacobians = np.tile(matrix, (NUM_KEYPOINTS, 1, 1))
    return Keypoints(points.astype(np.float32), jacobians.astype(np.float32))


def similarity(source: Points, target: Points) -> tuple[Points, Points]:
    """The rotation, scale and shift that best take `source` to `target`, both (N, 2), in the least-squares sense."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    power = float((s * s).sum())
    a = float((s * t).sum()) / power
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / power
    matrix = np.array([[a, -b], [b, a]])
    return matrix, target_mean - matrix @ source_mean
