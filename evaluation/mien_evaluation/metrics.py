"""L1, AKD and AED of generated pictures, as the paper (section 4.1) adopts them from FOMM. Pure functions on arrays.

FOMM's text (Siarohin et al. 2019, section 4) defines AKD as the average keypoint distance and AED as the average
Euclidean distance of identity embeddings; `akd` and `aed` follow this text. The script published with FOMM
(AliaksandrSiarohin/pose-evaluation, cmp_kp.py and cmp.py) computes something else: the mean difference of a
*coordinate*, about two thirds of the distance, and the *square* of the embeddings' distance. `akd_per_coordinate` and
`aed_squared` follow the script, for comparison with published figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

RgbArray = NDArray[np.uint8]
Points = NDArray[np.float64]
Embedding = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReadFace:
    """The readings of the instruments for one picture.

    landmarks: (68, 2) in pixels of the picture at 256x256. embedding: (128,), or None if identity is not wanted.
    """

    landmarks: Points
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over frames; a mean is None if no frame could be measured.

    l1: mean absolute error, pictures in [0, 1]. akd: mean distance of the landmarks, pixels at 256x256. aed: mean
    Euclidean distance of the embeddings. frames: number of frames compared. unread: frames in which the landmark
    detector finds a face in the driving picture but not in the generated one; they count for l1 only.
    """

    frames: int
    unread: int
    l1: float | None
    akd: float | None
    akd_per_coordinate: float | None
    aed: float | None
    aed_squared: float | None


MEASURES = ("l1", "akd", "akd_per_coordinate", "aed", "aed_squared")


def l1(generated: RgbArray, driving: RgbArray) -> float:
    """Mean absolute error of two pictures, or of two batches of them, uint8 of one shape; in [0, 1]."""
    if generated.shape != driving.shape:
        raise ValueError(f"pictures of different shapes, {generated.shape} and {driving.shape}, cannot be compared")
    return float(np.abs(generated.astype(np.int16) - driving).mean()) / 255


class Tally:
    """Collects the measurements of one method over one clip."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        self._unread = 0

    def add(self, generated: RgbArray, driving: RgbArray, read: ReadFace | None, wanted: ReadFace | None) -> None:
        """Add one frame. read, wanted: the readings of the generated and of the driving picture."""
        values = self._values
        values["l1"].append(l1(generated, driving))
        if wanted is None:
            return
        if read is None:
            self._unread += 1
            return
        apart = read.landmarks - wanted.landmarks
        values["akd"].append(float(np.linalg.norm(apart, axis=1).mean()))
        values["akd_per_coordinate"].append(float(np.abs(apart).mean()))
        if read.embedding is not None and wanted.embedding is not None:
            distance = float(np.linalg.norm(read.embedding - wanted.embedding))
            values["aed"].append(distance)
            values["aed_squared"].append(distance**2)

    def scores(self) -> Scores:
        """The means so far."""
        means = {measure: float(np.mean(values)) if values else None for measure, values in self._values.items()}
        return Scores(frames=len(self._values["l1"]), unread=self._unread, **means)


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """The mean of several scores. Each counts once, independent of its number of frames; frame counts are added up.

    A score without a value for a measure does not count for that measure.
    """
    listed = list(scores)
    means = {}
    for measure in MEASURES:
        values = [value for value in (getattr(score, measure) for score in listed) if value is not None]
        means[measure] = float(np.mean(values)) if values else None
    return Scores(frames=sum(s.frames for s in listed), unread=sum(s.unread for s in listed), **means)


def rounded(scores: Scores) -> dict[str, float | int | None]:
    """The scores for JSON, rounded to five decimals, which is finer than any detector's accuracy."""
    values = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
