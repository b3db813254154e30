"""Labelled sequences of synthetic heads, written as the labelled sets that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_landmarks.geometry import CropSquare
from mien_training.labelled import write_set
from mien_training.synthetic.labels import keypoint_rows


@dataclass(frozen=True)
class LabelledSequence:
    """frames: (N, S, S, 3) RGB. keypoints: (N, 10, 6). landmarks: (N, 478, 2), NaN where unknown; crop coordinates."""

    frames: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    landmarks: NDArray[np.float32]


def shaken(rng: np.random.Generator, box: CropSquare) -> CropSquare:
    """The box with a small random error, as a face finder makes it."""
    size = box.size * rng.uniform(0.94, 1.08)
    x, y = rng.normal(0, 0.015, 2) * size
    return CropSquare(box.x + (box.size - size) / 2 + x, box.y + 0.47 * (box.size - size) + y, size)


class Film:
    """A webcam's effects: blur, contrast, noise, compression. Their strength is the same for a whole sequence."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._blur = float(rng.uniform(0.3, 0.9)) if rng.random() < 0.5 else 0.0
        self._grain = float(rng.uniform(0, 3))
        self._contrast, self._lift = rng.uniform(0.85, 1.1), rng.uniform(-6, 10)
        self._quality = int(rng.integers(70, 98))

    def develop(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        soft = cv2.GaussianBlur(picture, (0, 0), self._blur) if self._blur else picture
        toned = (soft.astype(np.float32) - 128) * self._contrast + 128 + self._lift
        noisy = np.clip(toned + self._rng.normal(0, self._grain, (*picture.shape[:2], 1)), 0, 255).astype(np.uint8)
        _, coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def labelled(pictures: list[NDArray[np.uint8]], landmarks: list[NDArray[np.float64]]) -> LabelledSequence:
    """The sequence of these pictures (S, S, 3) with these landmarks (478, 2) in crop coordinates."""
    rows = np.stack([keypoint_rows(face) for face in landmarks])
    return LabelledSequence(np.stack(pictures), rows, np.stack(landmarks).astype(np.float32))


def write(sequence: LabelledSequence, folder: Path, kind: str, source: str) -> None:
    """Write one folder atomically; its name is the identity."""
    arrays: dict[str, NDArray[Any]] = {
        "frames": sequence.frames,
        "keypoints": sequence.keypoints,
        "landmarks": sequence.landmarks,
    }
    write_set(folder, arrays, identity=folder.name, kind=kind, source=source)
