"""L1, AKD and AED of generated pictures, as the paper (section 4.1) takes them over from FOMM. Pure: arrays in.

FOMM's text (Siarohin et al. 2019, section 4) calls AKD the average keypoint distance and AED the average Euclidean
distance of identity embeddings, and that is what `akd` and `aed` are. The script published with it
(AliaksandrSiarohin/pose-evaluation, cmp_kp.py and cmp.py) prints the mean difference of a *coordinate* instead of the
distance, about two thirds of it, and the *square* of the embeddings' distance: `akd_per_coordinate` and `aed_squared`
are those, for setting beside published figures.
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
    """What instruments read from one picture.

    landmarks: (68, 2) in pixels of the picture at 256x256. embedding: (128,), None where identity is not asked for.
    """

    landmarks: Points
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over frames; None where no frame could be measured.

    l1: mean absolute error, pictures in [0, 1]. akd: mean distance of the landmarks, pixels at 256x256. aed: mean
    Euclidean distance of the embeddings. frames: compared. unread: of these, frames in which the driving picture has
    a face for the landmark detector and the generated one has none: they count for l1 alone.
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
    """Gathers one method's frames of one clip."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        self._unread = 0

    def add(self, generated: RgbArray, driving: RgbArray, read: ReadFace | None, wanted: ReadFace | None) -> None:
        """One frame: both pictures, and what was read from the generated and from the driving one."""
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
    """The mean of several scores, each counting once however many frames it has; frames are added up.

    One that has no value for a measure is left out of that measure.
    """
    listed = list(scores)
    means = {}
    for measure in MEASURES:
        values = [value for value in (getattr(score, measure) for score in listed) if value is not None]
        means[measure] = float(np.mean(values)) if values else None
    return Scores(frames=sum(s.frames for s in listed), unread=sum(s.unread for s in listed), **means)


def rounded(scores: Scores) -> dict[str, float | int | None]:
    """As JSON carries them: five decimals say more than any detector knows."""
    values = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
