"""Derives from an avatar's keypoints how far each keypoint's motion reaches, and finds its mouth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import EYES, NUM_KEYPOINTS, FaceKeypoint, FloatArray

#: For each keypoint (sigma_x, sigma_y, stretch): its reach, and the largest displacement by its linear part, in units
#: of the distance between the eyes (about 63 mm). An eye's sigma_y is small, so that a blink does not move the brow.
_REACH: dict[FaceKeypoint, tuple[float, float, float]] = {
    FaceKeypoint.LEFT_BROW: (0.34, 0.16, 0.08),
    FaceKeypoint.RIGHT_BROW: (0.34, 0.16, 0.08),
    FaceKeypoint.LEFT_EYE: (0.30, 0.12, 0.13),  # the last two are for a brow 0.3 above the eye, see _LID_REACH
    FaceKeypoint.RIGHT_EYE: (0.30, 0.12, 0.13),
    FaceKeypoint.NOSE: (0.28, 0.34, 0.08),
    FaceKeypoint.UPPER_LIP: (0.46, 0.18, 0.10),
    FaceKeypoint.LOWER_LIP: (0.46, 0.18, 0.10),
    FaceKeypoint.CHIN: (0.60, 0.30, 0.10),
    FaceKeypoint.LEFT_CHEEK: (0.36, 0.42, 0.10),
    FaceKeypoint.RIGHT_CHEEK: (0.36, 0.42, 0.10),
}

#: Weight of each keypoint in the head's motion: lips and chin also move without the head, eyes and nose hardly do.
_RIGIDITY: dict[FaceKeypoint, float] = {
    FaceKeypoint.LEFT_BROW: 0.5,
    FaceKeypoint.RIGHT_BROW: 0.5,
    FaceKeypoint.LEFT_EYE: 1.0,
    FaceKeypoint.RIGHT_EYE: 1.0,
    FaceKeypoint.NOSE: 0.8,
    FaceKeypoint.UPPER_LIP: 0.4,
    FaceKeypoint.LOWER_LIP: 0.05,
    FaceKeypoint.CHIN: 0.08,
    FaceKeypoint.LEFT_CHEEK: 0.8,
    FaceKeypoint.RIGHT_CHEEK: 0.8,
}

_LID_CLOSING = 1.4

#: Sigma in y and largest displacement of an eye, as shares of the height from eye to brow, because drawn characters
#: have large eyes and high brows. _LID_RANGE limits that height, in distances between the eyes.
_LID_REACH = np.array([0.40, 0.43])
_LID_RANGE = np.array([0.25, 0.50])

#: Teeth are visible if an area between the lips is at least this colourless (darkest channel / brightest channel) and
#: clearly more colourless than the face. Lips and skin of every shade are reddish (0.45 to 0.75 on twelve portraits).
_TEETH_PALENESS = 0.75
_TEETH_BEYOND_SKIN = 1.08

#: Lips touch if their keypoints are closer than this share of the distance between the eyes.
_CLOSED_LIPS = 0.30

#: Sigma of a keypoint of unknown meaning, as a share of the distance to its nearest neighbour.
_GENERIC_REACH = 0.55
_GENERIC_SIGMA = (0.06, 0.35)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far and how much each keypoint moves its neighbourhood; crop coordinates.

    sigma: (10, 2) widths of the Gaussian weights in x and y. stretch: (10,) largest displacement by a keypoint's linear
    part. rigidity: (10,) weight of each keypoint in the head's motion. closing: (10,) exponent of a vertical squeeze.
    It exaggerates a blink, because landmarks show a shut eye as a slit of a tenth to a third of the eye's height.
    """

    sigma: FloatArray
    stretch: FloatArray
    rigidity: FloatArray
    closing: FloatArray


@dataclass(frozen=True, slots=True)
class Mouth:
    """The line between the avatar's lips; crop coordinates.

    The line between the lips is y = centre_y + tilt * u + bend * u^2, u = (x - centre_x) / half_width in [-1, 1].
    closed: whether the avatar's lips touch and show no teeth.
    """

    centre_x: float
    centre_y: float
    half_width: float
    tilt: float
    bend: float
    closed: bool


def is_face(points: FloatArray) -> bool:
    """Whether the ten points are arranged as FaceKeypoint names them: brows over eyes over nose over lips over chin.

    The keypoints of a self-supervised detector have no fixed meaning; then no point may be treated as an eye.
    """
    k = FaceKeypoint
    x, y = points[:, 0], points[:, 1]
    between_eyes = x[k.RIGHT_EYE] - x[k.LEFT_EYE]
    middle = 0.5 * (x[k.RIGHT_EYE] + x[k.LEFT_EYE])
    return bool(
        between_eyes > 0.1
        and max(y[k.LEFT_BROW], y[k.RIGHT_BROW]) < max(y[k.LEFT_EYE], y[k.RIGHT_EYE])
        and max(y[k.LEFT_EYE], y[k.RIGHT_EYE]) < y[k.NOSE] < y[k.UPPER_LIP] < y[k.LOWER_LIP] < y[k.CHIN]
        and x[k.LEFT_CHEEK] < middle < x[k.RIGHT_CHEEK]
        and x[k.LEFT_BROW] < middle < x[k.RIGHT_BROW]
    )


def reach_of(points: FloatArray) -> Reach:
    """The reach of an avatar's keypoints, (10, 2): by their names if is_face, otherwise by their distances."""
    if is_face(points):
        between_eyes = np.linalg.norm(points[FaceKeypoint.RIGHT_EYE] - points[FaceKeypoint.LEFT_EYE])
        reach = np.array([_REACH[k] for k in FaceKeypoint], np.float32) * np.float32(between_eyes)
        for eye, brow in zip(EYES, (FaceKeypoint.LEFT_BROW, FaceKeypoint.RIGHT_BROW), strict=True):
            lid = np.clip(points[eye, 1] - points[brow, 1], *(_LID_RANGE * between_eyes))
            reach[eye, 1:] = _LID_REACH * lid
        closing = np.array([_LID_CLOSING if k in EYES else 1 for k in FaceKeypoint], np.float32)
        rigidity = np.array([_RIGIDITY[k] for k in FaceKeypoint], np.float32)
        return Reach(reach[:, :2], reach[:, 2], rigidity, closing)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 4.0 * np.eye(NUM_KEYPOINTS)
    sigma = np.clip(_GENERIC_REACH * distance.min(axis=1), *_GENERIC_SIGMA).astype(np.float32)
    ones = np.ones(NUM_KEYPOINTS, np.float32)
    return Reach(np.stack([sigma, sigma], axis=1), 0.6 * sigma, ones, ones)


def find_mouth(rgb: NDArray[np.uint8], points: FloatArray) -> Mouth | None:
    """The line between the lips: the darkest smooth curve between the lip keypoints.

    rgb: (S, S, 3) uint8 crop. None if the keypoints are not arranged like a face.
    """
    if not is_face(points):
        return None
    scale = 0.5 * (rgb.shape[0] - 1)
    eyes = points[FaceKeypoint.RIGHT_EYE] - points[FaceKeypoint.LEFT_EYE]
    upper, lower = points[FaceKeypoint.UPPER_LIP], points[FaceKeypoint.LOWER_LIP]
    between_eyes = float(np.linalg.norm(eyes))
    half_width = 0.37 * between_eyes
    centre_x = 0.5 * float(upper[0] + lower[0])
    gap = float(lower[1] - upper[1])
    # All candidates: position between the lips (0 to 1), tilt relative to the line through the eyes, bend.
    share, tilt, bend = (
        grid.ravel()
        for grid in np.meshgrid(np.linspace(-0.2, 1.2, 29), np.linspace(-0.15, 0.15, 7), np.linspace(-0.3, 0.2, 11))
    )
    u = np.linspace(-0.8, 0.8, 33)
    line = (upper[1] + share * gap)[:, None] + half_width * (
        (tilt + float(eyes[1] / eyes[0]))[:, None] * u + bend[:, None] * u**2
    )
    columns = np.broadcast_to((centre_x + u * half_width + 1) * scale, line.shape)
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), max(0.8, 0.004 * rgb.shape[0]))
    looked_up = np.stack([columns, (line + 1) * scale], axis=-1).astype(np.float32)
    darkness = cv2.remap(grey, looked_up, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # A weak preference for the middle and for a flat line, which decides if the picture shows no line.
    cost = darkness.mean(axis=1) + 10.0 * (share - 0.45) ** 2 + 20.0 * tilt**2 + 4.0 * bend**2
    best = int(np.argmin(cost))
    apart = gap > _CLOSED_LIPS * between_eyes
    closed = not (apart or _shows_teeth(rgb, columns[best], looked_up[best, :, 1], 0.5 * gap * scale))
    return Mouth(
        centre_x,
        float(upper[1] + share[best] * gap),
        half_width,
        half_width * float(tilt[best] + eyes[1] / eyes[0]),
        half_width * float(bend[best]),
        closed,
    )


def _shows_teeth(rgb: NDArray[np.uint8], columns: NDArray[np.float64], rows: FloatArray, reach_px: float) -> bool:
    """Whether an area within `reach_px` of the line between the lips is clearly paler than the face."""
    darkest, brightest = rgb.min(axis=2).astype(np.float32), rgb.max(axis=2).astype(np.float32)
    paleness = cv2.GaussianBlur(darkest / np.maximum(brightest, 1), (0, 0), max(0.8, 0.004 * rgb.shape[0]))
    inner = slice(len(rows) // 4, -(len(rows) // 4))
    y = rows[inner] + np.linspace(-reach_px, reach_px, 11)[:, None]
    looked_up = np.stack([np.broadcast_to(columns[inner], y.shape), y], axis=-1).astype(np.float32)
    lines = cv2.remap(paleness, looked_up, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(axis=1)
    third = rgb.shape[0] // 3
    skin = float(np.median(paleness[third:-third, third:-third]))
    return float(lines.max()) > max(_TEETH_PALENESS, _TEETH_BEYOND_SKIN * skin)
