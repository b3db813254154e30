"""Fits the mean face that Jacobians refer to. No I/O; `mien_landmarks fit-mean` runs it on clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mien_landmarks.geometry import (
    LOWER_LIP_INSIDE,
    NUM_LANDMARKS,
    UPPER_LIP_INSIDE,
    Array,
    crop_box_of,
    used_landmarks,
)

_UPPER_LIDS, _LOWER_LIDS = (159, 386), (145, 374)


def mirror_of(shape: Array) -> list[int]:
    """For each of the N points of a roughly symmetric shape (N, 2), the index of its mirror point."""
    mirrored = shape * (-1.0, 1.0) + (2 * np.median(shape[:, 0]), 0.0)
    return [int(i) for i in np.linalg.norm(mirrored[:, None] - shape[None], axis=2).argmin(axis=1)]


def neutral_frames(faces: Array, count: int) -> Array:
    """The `count` most symmetric frames of one speaker with mouth closed and eyes open. faces: (F, N, 2) in crops."""
    mirror = mirror_of(np.median(faces, axis=0)[used_landmarks()])
    used = faces[:, used_landmarks()]
    flipped = used[:, mirror] * (-1.0, 1.0)
    skew = np.abs(used - flipped - (used - flipped).mean(axis=1, keepdims=True)).mean(axis=(1, 2))
    gap = np.linalg.norm(faces[:, LOWER_LIP_INSIDE] - faces[:, UPPER_LIP_INSIDE], axis=1)
    opening = (faces[:, _LOWER_LIDS, 1] - faces[:, _UPPER_LIDS, 1]).mean(axis=1)
    closing = np.clip(np.quantile(opening, 0.7) - opening, 0, None)
    return faces[np.argsort(skew + gap + 2 * closing)[:count]]


def fit_mean_face(speakers: Sequence[Sequence[Array]], frames_each: int = 5) -> dict[int, tuple[float, float]]:
    """The symmetric mean of the speakers' neutral frames.

    speakers: for each speaker the frames' landmarks, (478, 2) in picture pixels.
    Returns the used landmarks in crop coordinates, rounded to three digits.
    """
    neutral = []
    for frames in speakers:
        framed = np.stack([crop_box_of(frame).to_crop(frame[:, :2]) for frame in frames])
        neutral.append(neutral_frames(framed, frames_each).mean(axis=0))
    mean = np.mean(neutral, axis=0)
    used = used_landmarks()
    shape = mean[used]
    mirror = mirror_of(shape)
    symmetric = (shape + shape[mirror] * (-1.0, 1.0)) / 2
    symmetric[:, 0] -= symmetric[:, 0].mean()
    full = np.full((NUM_LANDMARKS, 2), np.nan)
    full[used] = symmetric
    # Averaging may have changed the face's height, so frame the mean as a crop again.
    full = crop_box_of(full).to_crop(full)
    return {i: (round(float(full[i, 0]), 3), round(float(full[i, 1]), 3)) for i in used}
