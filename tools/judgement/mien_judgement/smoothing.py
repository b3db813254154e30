"""Measures jitter and lag of each smoother on keypoints found in a real clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother, Unsmoothed
from mien_judgement.clip import Array, FoundMotion

SMOOTHERS: dict[str, Callable[[], Smoother]] = {
    "none": Unsmoothed,
    "One-Euro": OneEuro,
    "One-Euro, dead zones": lambda: DeadZones(OneEuro()),
    "Savitzky-Golay 5, cubic, centred": SavitzkyGolay,
    "Savitzky-Golay, dead zones": lambda: DeadZones(SavitzkyGolay()),
}
#: Pixels of a 384 crop in one crop unit.
_PX = 192
_SETTLING_FRAMES = 15
_LONGEST_LAG = 8


@dataclass(frozen=True, slots=True)
class SmootherFigures:
    """One smoother's figures.

    still_px: jitter in the stillest second of the clip; noise_px: jitter on one frame of it repeated with camera noise.
    Both are the root mean square of a keypoint's move from one frame to the next, in pixels of a 384 crop.
    lag_frames: the shift at which the cross-correlation of smoothed and unsmoothed points peaks.
    """

    name: str
    still_px: float
    noise_px: float
    lag_frames: float


def figures_of(clip: FoundMotion, noise: FoundMotion) -> list[SmootherFigures]:
    """The figures of every smoother, on a clip with a face in all frames and on a still with noise."""
    stillest = _stillest_second(clip)
    figures = []
    for name, make in SMOOTHERS.items():
        smoothed, steadied = _through(make(), clip), _through(make(), noise)
        figures.append(
            SmootherFigures(
                name,
                still_px=_jitter_px(smoothed[stillest]),
                noise_px=_jitter_px(steadied[_SETTLING_FRAMES:]),
                lag_frames=_lag_frames(clip.rows, smoothed),
            )
        )
    return figures


def _through(smoother: Smoother, motion: FoundMotion) -> Array:
    return np.stack([smoother.filter(rows, time_s) for rows, time_s in zip(motion.rows, motion.times_s, strict=True)])


def _stillest_second(clip: FoundMotion) -> slice:
    frames = round(1 / float(np.median(np.diff(clip.times_s))))
    speed = np.abs(np.diff(clip.rows[:, :, :2], axis=0)).mean(axis=(1, 2))
    mean_speed = np.convolve(speed, np.ones(frames), "valid")[_SETTLING_FRAMES:]
    start = _SETTLING_FRAMES + int(mean_speed.argmin())
    return slice(start, start + frames)


def _jitter_px(rows: Array) -> float:
    steps = np.diff(rows[:, :, :2], axis=0)
    return float(np.sqrt(np.square(steps).sum(axis=2).mean()) * _PX)


def _lag_frames(before: Array, after: Array) -> float:
    """The shift at which the points of two motions correlate best, refined by a parabola through the peak."""
    x, y = (
        _standardised(rows[_SETTLING_FRAMES:, :, :2].reshape(len(rows) - _SETTLING_FRAMES, -1))
        for rows in (before, after)
    )
    shifts = range(-2, _LONGEST_LAG + 1)
    scores = np.array([(x[_LONGEST_LAG:-_LONGEST_LAG] * _shifted(y, shift)).mean() for shift in shifts])
    peak = min(max(int(scores.argmax()), 1), len(scores) - 2)
    left, middle, right = scores[peak - 1 : peak + 2]
    return float(shifts[peak] + 0.5 * (left - right) / (left - 2 * middle + right))


def _shifted(values: Array, shift: int) -> Array:
    return values[_LONGEST_LAG + shift : len(values) - _LONGEST_LAG + shift]


def _standardised(values: Array) -> Array:
    """The values without their mean, divided by the standard deviation of the whole clip."""
    centred = values - values.mean(axis=0)
    return np.asarray(centred / centred.std())
