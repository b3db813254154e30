"""Computes ten keypoints with Jacobians from 478 face landmarks. No I/O.

A keypoint is the centroid of a group of landmarks. Its Jacobian is the least-squares affine map that takes the group
from a mean face (frontal, mouth closed, eyes open, framed as every crop is) to its present place. A neutral frontal
face therefore has about unit Jacobians, and a head that turns, tilts or comes nearer changes all ten of them.

Landmark numbers are those of MediaPipe's Face Mesh with irises; left and right are the picture's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, Keypoints
from mien_shared.wire.motion import MAX_COORDINATE

Array = NDArray[np.float64]

NUM_LANDMARKS = 478

#: A crop's side in face heights, and the place of the face's centre from the crop's top, as a share of the side.
CROP_SIDE_IN_FACE_HEIGHTS = 1.75
FACE_CENTRE_FROM_TOP = 0.47

#: Bounds of the singular values of a relative Jacobian.
SMALLEST_MOTION, LARGEST_MOTION = 0.05, 3.0

FOREHEAD, CHIN = 10, 152
UPPER_LIP_INSIDE, LOWER_LIP_INSIDE = 13, 14
MOUTH_CORNERS = (61, 291)
#: Landmarks of nose, temples and forehead, which neither speech nor a blink moves.
STABLE = (6, 168, 195, 5, 4, 1, 127, 356, 162, 389, 21, 251, 103, 332, 109, 338, 10, 151, 33, 263, 133, 362)


@dataclass(frozen=True, slots=True)
class Group:
    """The landmarks of one keypoint.

    stiffness: in crop units. In a direction in which the points spread less than this, for example across a brow, the
    Jacobian follows the whole head instead of the group.
    smallest, largest: the bounds of the Jacobian's singular values. A closed eye is a tenth of an open one.
    """

    landmarks: tuple[int, ...]
    stiffness: float
    smallest: float = 0.45
    largest: float = 2.0


GROUPS: dict[FaceKeypoint, Group] = {
    FaceKeypoint.LEFT_BROW: Group((70, 63, 105, 66, 107, 46, 53, 52, 65, 55), 0.05),
    FaceKeypoint.RIGHT_BROW: Group((300, 293, 334, 296, 336, 276, 283, 282, 295, 285), 0.05),
    FaceKeypoint.LEFT_EYE: Group(
        (33, 133, 7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173), 0.005, 0.1
    ),
    FaceKeypoint.RIGHT_EYE: Group(
        (263, 362, 249, 390, 373, 374, 380, 381, 382, 466, 388, 387, 386, 385, 384, 398), 0.005, 0.1
    ),
    FaceKeypoint.NOSE: Group((6, 197, 195, 5, 4, 1, 19, 2, 98, 327, 48, 278, 115, 344, 45, 275, 220, 440), 0.05),
    # Only the middle of the lips: with the corners, an opening mouth would look like a lip of three times the
    # thickness.
    FaceKeypoint.UPPER_LIP: Group((40, 39, 37, 0, 267, 269, 270, 80, 81, 82, 13, 312, 311, 310), 0.04),
    FaceKeypoint.LOWER_LIP: Group((91, 181, 84, 17, 314, 405, 321, 88, 178, 87, 14, 317, 402, 318), 0.04),
    FaceKeypoint.CHIN: Group((152, 148, 176, 149, 377, 400, 378, 199, 175, 200, 83, 313, 208, 428, 32, 262), 0.05),
    FaceKeypoint.LEFT_CHEEK: Group((93, 132, 58, 172, 136, 123, 147, 187, 213, 192, 214), 0.05),
    FaceKeypoint.RIGHT_CHEEK: Group((323, 361, 288, 397, 365, 352, 376, 411, 433, 416, 434), 0.05),
}


@dataclass(frozen=True, slots=True)
class CropSquare:
    """A square of a picture, in its pixels: left edge, top edge, side."""

    x: float
    y: float
    size: float

    def to_crop(self, landmarks: Array) -> Array:
        """(N, 2) picture pixels to crop coordinates: the box spans [-1, 1], y down."""
        scaled: Array = (landmarks - (self.x, self.y)) * (2 / self.size) - 1
        return scaled

    def towards(self, other: CropSquare, amount: float) -> CropSquare:
        """Interpolates to another box: amount 0 is this box, 1 the other one."""
        return CropSquare(
            self.x + amount * (other.x - self.x),
            self.y + amount * (other.y - self.y),
            self.size + amount * (other.size - self.size),
        )


def crop_box_of(landmarks: Array) -> CropSquare:
    """The crop box of one face, framed as in clips and avatars. landmarks: (478, 2 or more), picture pixels."""
    top, bottom = landmarks[FOREHEAD, :2], landmarks[CHIN, :2]
    side = CROP_SIDE_IN_FACE_HEIGHTS * float(np.linalg.norm(bottom - top))
    sides = landmarks[[234, 454], :2].mean(axis=0)
    return CropSquare(
        x=float(sides[0] - side / 2),
        y=float((top[1] + bottom[1]) / 2 - FACE_CENTRE_FROM_TOP * side),
        size=side,
    )


@cache
def mean_face() -> Array:
    """(478, 2) the reference: a mean face in crop coordinates; NaN for landmarks that no group uses.

    It is the symmetric mean of a few speakers' neutral frames, made by `mien_landmarks fit-mean`.
    """
    table = np.full((NUM_LANDMARKS, 2), np.nan)
    stored: dict[str, list[float]] = json.loads((files(__package__) / "mean_face.json").read_text())
    for landmark, point in stored.items():
        table[int(landmark)] = point
    table.flags.writeable = False
    return table


def used_landmarks() -> list[int]:
    """Every landmark that the keypoints, the head's motion or the framing depend on."""
    used = {FOREHEAD, CHIN, 234, 454, UPPER_LIP_INSIDE, LOWER_LIP_INSIDE, *MOUTH_CORNERS, *STABLE}
    return sorted(used.union(*(group.landmarks for group in GROUPS.values())))


def least_squares_jacobian(reference: Array, points: Array, prior: Array, stiffness: float) -> Array:
    """The 2x2 map J that best takes `reference` to `points`, both (N, 2), each about its own centroid.

    Ridge regression towards `prior` (2, 2): minimises sum |p - J q|^2 + N stiffness^2 |J - prior|^2. In a direction in
    which the reference hardly spreads, the result falls back to the prior instead of amplifying noise.
    """
    q = reference - reference.mean(axis=0)
    p = points - points.mean(axis=0)
    ridge = len(q) * stiffness**2
    return np.asarray((p.T @ q + ridge * prior) @ np.linalg.inv(q.T @ q + ridge * np.eye(2)))


def well_conditioned(jacobian: Array, smallest: float, largest: float) -> Array:
    """The nearest 2x2 map with singular values in [smallest, largest] and without reflection."""
    u, values, vt = np.linalg.svd(jacobian)
    mirrored = np.linalg.det(u) * np.linalg.det(vt) < 0
    if mirrored:  # move the reflection into the smaller value, which is then raised to the lower bound
        u, values = u * (1.0, -1.0), values * (1.0, -1.0)
    return np.asarray((u * np.clip(values, smallest, largest)) @ vt)


def motion_since(keypoints: Keypoints, initial: Keypoints) -> Keypoints:
    """Motion relative to `initial`, limited to the values that a motion packet may hold.

    The initial frame may show a blink. An eye that is ten times as open later would make an invalid packet.
    """
    moved = keypoints.relative_to(initial)
    jacobians = [well_conditioned(j, SMALLEST_MOTION, LARGEST_MOTION) for j in moved.jacobians.astype(np.float64)]
    points = np.clip(moved.points, -MAX_COORDINATE, MAX_COORDINATE)
    return Keypoints(points, np.stack(jacobians).astype(np.float32))


def keypoints_of(landmarks: Array, reference: Array | None = None) -> Keypoints:
    """The ten keypoints of a face. landmarks: (478, 2) in crop coordinates; reference: default mean_face()."""
    reference = mean_face() if reference is None else reference
    stable = list(STABLE)
    head = least_squares_jacobian(reference[stable], landmarks[stable], np.eye(2), 0.0)
    points = np.empty((NUM_KEYPOINTS, 2), np.float32)
    jacobians = np.empty((NUM_KEYPOINTS, 2, 2), np.float32)
    for keypoint, group in GROUPS.items():
        chosen = list(group.landmarks)
        points[keypoint] = landmarks[chosen].mean(axis=0)
        raw = least_squares_jacobian(reference[chosen], landmarks[chosen], head, group.stiffness)
        jacobians[keypoint] = well_conditioned(raw, group.smallest, group.largest)
    return Keypoints(points, jacobians)


def strain(landmarks: Array) -> float:
    """How far a face is from neutral (frontal, upright, mouth closed, eyes open); 0 is the mean face itself.

    landmarks: (478, 2) in crop coordinates.
    """
    reference = mean_face()
    height = np.linalg.norm(landmarks[CHIN] - landmarks[FOREHEAD])
    gap = np.linalg.norm(landmarks[LOWER_LIP_INSIDE] - landmarks[UPPER_LIP_INSIDE]) / height
    stable = list(STABLE)
    head = least_squares_jacobian(reference[stable], landmarks[stable], np.eye(2), 0.0)
    scale = np.sqrt(abs(np.linalg.det(head)))
    turn = np.abs(head / scale - np.eye(2)).max()
    keypoints = keypoints_of(landmarks)
    lids = keypoints.jacobians[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE], 1, 1]
    closing = float(np.clip(1 - lids / scale, 0, None).max())
    # When a head turns, the nose first moves from the middle between the temples; foreshortening comes later.
    middle = landmarks[[127, 356]].mean(axis=0)[0]
    off_centre = abs(landmarks[4][0] - middle) / height
    return float(4 * gap + turn + closing + 4 * off_centre)


def most_neutral(faces: Sequence[Array]) -> int:
    """The index of the face, (478, 2) each in crop coordinates, that is the best initial frame.

    The distance from the clip's median pose counts too: motion is relative to this frame and should stay near zero.
    """
    used = used_landmarks()
    usual = np.median(np.stack(faces)[:, used], axis=0)
    return int(np.argmin([strain(face) + 2 * np.abs(face[used] - usual).mean() for face in faces]))
