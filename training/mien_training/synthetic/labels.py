"""Exact labels of a rendered head: Face Mesh's landmarks as vertices of the ICT model.

landmark_vertices.json was fitted once, with Face Mesh on 80 frontal renders of 40 identities. Each landmark got the
visible vertex of the face whose projection was nearest in the median. Mirrored landmarks have mirrored vertices, and
landmarks of the lips were fitted on open mouths only. (fit_landmarks.py repeats this, with a mean distance of 2 mm from
that file.) On those renders the ten keypoints differ from Face Mesh's by 0.003 to 0.01 of [-1, 1]. Unlike Face Mesh's,
they keep their place on the skin in every pose and expression.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mien_landmarks.geometry import NUM_LANDMARKS, CropSquare, crop_box_of, keypoints_of
from mien_training.synthetic.head import Array


@cache
def landmark_vertices() -> NDArray[np.int64]:
    """(468,) the model's vertex of each landmark. The ten iris landmarks have none; no keypoint uses them."""
    return np.array(json.loads((files(__package__) / "landmark_vertices.json").read_text()), np.int64)


def landmarks_of(projected: Array) -> NDArray[np.float64]:
    """(478, 2) landmarks of the model's projected vertices (V, 2); NaN for the irises."""
    landmarks = np.full((NUM_LANDMARKS, 2), np.nan)
    vertices = landmark_vertices()
    landmarks[: len(vertices)] = projected[vertices]
    return landmarks


def framing(faces: list[NDArray[np.float64]]) -> CropSquare:
    """The crop box of a sequence of faces, (478, 2) each: the mean of their boxes, as for clips."""
    boxes = [crop_box_of(face) for face in faces]
    return CropSquare(*(float(np.mean([getattr(box, part) for box in boxes])) for part in ("x", "y", "size")))


def keypoint_rows(landmarks: NDArray[np.float64]) -> NDArray[np.float32]:
    """(10, 6) keypoints x, y, j00, j01, j10, j11 from a face's landmarks (478, 2), in crop coordinates."""
    keypoints = keypoints_of(landmarks)
    return np.concatenate([keypoints.points, keypoints.jacobians.reshape(-1, 4)], axis=1).astype(np.float32)
