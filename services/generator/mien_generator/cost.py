"""What faces cost: seconds of a device for a batch, as measured, and by how much it is more under load. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

#: How much of a new observation enters the running figure; ten batches forget a third of what was before.
_SMOOTHING = 0.1
#: One batch that the operating system kept waiting says nothing: observations count for at most so many predictions.
_OUTLIER = 4.0
#: No machine is this much faster than it was when it had nothing else to do.
_LEAST_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds of one run of the device by the number of faces in it.

    points: (faces, seconds), rising in both; at least one. Between two points it is linear; beyond the last, and
    before the first, the faces cost what they cost there.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        faces = [count for count, _ in self.points]
        seconds = [cost for _, cost in self.points]
        if (
            not self.points
            or faces[0] < 1
            or seconds[0] <= 0
            or sorted(set(faces)) != faces
            or sorted(seconds) != seconds
        ):
            raise ValueError(f"batch costs rise with the number of faces from above 0, not {self.points}")

    @classmethod
    def measured(cls, seconds_of: Mapping[int, float]) -> BatchCost:
        """From measurements: a larger batch that came out cheaper than a smaller one costs what that one does."""
        points, most_s = [], 0.0
        for faces in sorted(seconds_of):
            most_s = max(most_s, seconds_of[faces])
            points.append((faces, most_s))
        return cls(tuple(points))

    @classmethod
    def linear(cls, face_s: float) -> BatchCost:
        """A device that gains nothing from batches."""
        return cls(((1, face_s),))

    def of(self, faces: int) -> float:
        """Seconds that a batch of so many takes."""
        counts = [count for count, _ in self.points]
        at = bisect_left(counts, faces)
        if at == len(counts):  # several of the largest, one after another
            count, cost_s = self.points[-1]
            return cost_s * faces / count
        if counts[at] == faces or at == 0:
            return self.points[at][1]
        (below, below_s), (above, above_s) = self.points[at - 1], self.points[at]
        return below_s + (above_s - below_s) * (faces - below) / (above - below)

    def most_within(self, limit_s: float, most: int) -> int:
        """The largest batch, of at most `most`, that takes no longer than `limit_s`; 1 where even that takes longer."""
        faces = 1
        while faces < most and self.of(faces + 1) <= limit_s:
            faces += 1
        return faces


class Load:
    """By how much a device's runs take longer than when it was measured, smoothed. 1 until something is seen."""

    def __init__(self) -> None:
        self.factor = 1.0

    def observe(self, expected_s: float, taken_s: float) -> None:
        """One run, and what it was expected to take at a factor of 1."""
        seen = min(max(taken_s / expected_s, _LEAST_LOAD), _OUTLIER * self.factor)
        self.factor += _SMOOTHING * (seen - self.factor)
