"""The default motion, shown instead of a speaker's motion. The face breathes, sways, blinks, nods and smiles.

The sender plays it in place of frames that its judgement rejects. The generator plays it while an uplink is silent.
Pure: motion is a function of time and a seed, so both ends, and a port in another language, compute the same motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mien_shared.keypoints import EYES, FaceKeypoint, FloatArray, Keypoints

_BREATH_PERIOD_S = 4.2
_BREATH_RISE = 0.010  # share of half the crop: two pixels of 384
_SWAY_PERIOD_S = 7.3
_SWAY_RADIANS = 0.012
_CLOSED_EYE = 0.12  # height of a closed eye as a share of its open height
_NOD_DIP = 0.028
_NOD_SHORTENING = 0.03  # a head that looks down appears shorter
_SMILE_WIDENING = 0.10  # share of the lips' width
_SMILE_LIFT = 0.014  # upward shift of cheeks and lips
_SMILE_SQUINT = 0.12

#: The fractional part of the golden ratio. Its multiples modulo 1 spread evenly over [0, 1) and never repeat.
_SCRAMBLE = 0.618034


@dataclass(frozen=True, slots=True)
class _Gesture:
    """A gesture that occurs once in every `every_s` and lasts `length_s`. Its start varies by up to `spread_s`."""

    every_s: float
    spread_s: float
    length_s: float

    def phase(self, seconds: float, seed: int) -> float | None:
        """How far the gesture has come, 0 to 1; None between gestures. The first interval has no gesture."""
        turn = math.floor(seconds / self.every_s)
        if turn < 1:
            return None
        # Regular gestures look mechanical. Each start depends on the gesture's number: motion stays a function of time.
        start_s = turn * self.every_s + self.spread_s * math.modf((turn + seed) * _SCRAMBLE)[0]
        phase = (seconds - start_s) / self.length_s
        return phase if 0 < phase < 1 else None


_BLINK = _Gesture(every_s=3.4, spread_s=1.6, length_s=0.22)
_NOD = _Gesture(every_s=8.7, spread_s=4.0, length_s=1.1)
_SMILE = _Gesture(every_s=13.0, spread_s=5.0, length_s=3.2)


@dataclass(frozen=True, slots=True)
class DefaultMotion:
    """Relative motion of a face's keypoints as a pure function of time.

    source: the keypoints at rest. seed: selects the times of blinks, nods and smiles; 0 or more.
    The mouth keeps its shape, apart from a faint smile. A mouth that the last frame left open closes during the ease.
    """

    source: Keypoints
    seed: int = 0

    def at(self, seconds: float) -> Keypoints:
        """The relative motion `seconds` after its beginning; at 0 the face is at rest."""
        angle = _SWAY_RADIANS * math.sin(2 * math.pi * seconds / _SWAY_PERIOD_S)
        rise = -_BREATH_RISE * (1 - math.cos(2 * math.pi * seconds / _BREATH_PERIOD_S)) / 2
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32)
        pivot = self.source.points.mean(axis=0) + np.array([0.0, 0.6], np.float32)  # the neck
        points = (self.source.points - pivot) @ turn.T + pivot - self.source.points
        nodding = nod(seconds, self.seed)
        points[:, 1] += np.float32(rise + _NOD_DIP * nodding)
        jacobians = np.tile(turn @ _stretch(1, 1 - _NOD_SHORTENING * nodding), (len(points), 1, 1))
        smiling = smile(seconds, self.seed)
        for part in (FaceKeypoint.LEFT_CHEEK, FaceKeypoint.RIGHT_CHEEK, FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP):
            points[part, 1] -= np.float32(_SMILE_LIFT * smiling)
        for lip in (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP):
            jacobians[lip] = jacobians[lip] @ _stretch(1 + _SMILE_WIDENING * smiling, 1)
        lid = _stretch(1, (1 - (1 - _CLOSED_EYE) * blink(seconds, self.seed)) * (1 - _SMILE_SQUINT * smiling))
        for eye in EYES:
            jacobians[eye] = jacobians[eye] @ lid
        return Keypoints(points.astype(np.float32), jacobians)


class Ease:
    """Moves from the shown motion to a target without a jump. Outside an ease it shows the target itself."""

    def __init__(self, now_s: float) -> None:
        self.shown = Keypoints.at_rest()
        self._from = self.shown
        self._start_s = now_s
        self._length_s = 0.0

    def begin(self, now_s: float, length_s: float) -> None:
        """Start an ease from the shown motion; it reaches the target after `length_s`."""
        self._from, self._start_s, self._length_s = self.shown, now_s, length_s

    def show(self, target: Keypoints, now_s: float) -> Keypoints:
        """The motion to show now: a smoothstep from the start of the ease to `target`. It is kept as `shown`."""
        elapsed_s = now_s - self._start_s
        self.shown = target
        if elapsed_s < self._length_s:
            self.shown = self._from.blended(target, smoothstep(elapsed_s / self._length_s))
        return self.shown


def smoothstep(amount: float) -> float:
    """A curve from 0 to 1 whose slope is 0 at both ends."""
    return amount * amount * (3 - 2 * amount)


def blink(seconds: float, seed: int = 0) -> float:
    """How far the eyes are closed, 0 to 1. The first blink comes after the first interval."""
    return _bump(_BLINK.phase(seconds, seed))


def nod(seconds: float, seed: int = 0) -> float:
    """How far the head is lowered, 0 to 1: one dip, then a smaller one."""
    phase = _NOD.phase(seconds, seed)
    if phase is None:
        return 0.0
    return _bump(phase / 0.6) if phase < 0.6 else 0.4 * _bump((phase - 0.6) / 0.4)


def smile(seconds: float, seed: int = 0) -> float:
    """How strong the faint smile is, 0 to 1. It is held for the middle half of its length."""
    phase = _SMILE.phase(seconds, seed)
    return 0.0 if phase is None else smoothstep(min(1.0, 4 * min(phase, 1 - phase)))


def _bump(phase: float | None) -> float:
    return 0.0 if phase is None else math.sin(math.pi * phase) ** 2


def _stretch(x: float, y: float) -> FloatArray:
    return np.array([[x, 0], [0, y]], np.float32)
