"""The cost of faces: the measured device time of a batch, and a factor for the present load. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

#: Weight of a new observation in the moving average. After ten batches the older value has a weight of 0.35.
_SMOOTHING = 0.1
#: An observation counts for at most this many times the factor: the operating system may have delayed the batch.
_OUTLIER = 4.0
#: Lowest observation that counts. A machine under load is not faster than this, compared with the idle measurement.
_LEAST_LOAD = 0.5

#: Longest batch as a share of a frame's interval: a longer batch would delay sessions that become due meanwhile.
_BATCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds of one run of the device as a function of the number of faces in it.

    points: (faces, seconds), rising in both; at least one. Between two points the cost is linear. Below the first point
    a batch costs as much as that point. Beyond the last point a face costs as much as in the largest batch.
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
            raise ValueError(f"batch costs must be above 0 and rise with the number of faces, not {self.points}")

    @classmethod
    def measured(cls, seconds_of: Mapping[int, float]) -> BatchCost:
        """From measurements. A larger batch that was measured as cheaper than a smaller one gets the smaller's cost."""
        points, most_s = [], 0.0
        for faces in sorted(seconds_of):
            most_s = max(most_s, seconds_of[faces])
            points.append((faces, most_s))
        return cls(tuple(points))

    @classmethod
    def linear(cls, face_s: float) -> BatchCost:
        """The cost on a device that gains nothing from batches: `face_s` for every face."""
        return cls(((1, face_s),))

    def of(self, faces: int) -> float:
        """Seconds that a batch of this many faces takes."""
        counts = [count for count, _ in self.points]
        at = bisect_left(counts, faces)
        if at == len(counts):  # as several of the largest batches, one after another
            count, cost_s = self.points[-1]
            return cost_s * faces / count
        if counts[at] == faces or at == 0:
            return self.points[at][1]
        (below, below_s), (above, above_s) = self.points[at - 1], self.points[at]
        return below_s + (above_s - below_s) * (faces - below) / (above - below)

    def most_within(self, limit_s: float, most: int) -> int:
        """The largest batch, at most `most`, that takes at most `limit_s`. 1 if even one face takes longer."""
        faces = 1
        while faces < most and self.of(faces + 1) <= limit_s:
            faces += 1
        return faces


class Load:
    """The load of a device: how many times longer its runs take than when it was measured. Smoothed; 1 at first."""

    def __init__(self) -> None:
        self.factor = 1.0

    def observe(self, expected_s: float, taken_s: float) -> None:
        """Take one run into account. expected_s: its cost at a factor of 1. taken_s: its real duration."""
        seen = min(max(taken_s / expected_s, _LEAST_LOAD), _OUTLIER * self.factor)
        self.factor += _SMOOTHING * (seen - self.factor)


def largest_batches(costs: Mapping[int, BatchCost], fps: int, max_batch: int) -> dict[int, int]:
    """The largest batch of each of the device's tiers."""
    return {tier: cost.most_within(_BATCH_SHARE / fps, max_batch) for tier, cost in costs.items()}
