"""The default motion: what a face does while its speaker's packets stay away. It breathes, sways and blinks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mien_shared.motion import EYES, Keypoints

_BREATH_PERIOD_S = 4.2
_BREATH_RISE = 0.010  # of the half crop: two pixels of 384
_SWAY_PERIOD_S = 7.3
_SWAY_RADIANS = 0.012
_BLINK_EVERY_S = 3.4
_BLINK_SPREAD_S = 1.6  # blinks that keep time look like a machine
_BLINK_LENGTH_S = 0.22
_CLOSED_EYE = 0.12  # an eye's height when closed, in its height when open


@dataclass(frozen=True, slots=True)
class DefaultMotion:
    """Relative motion as a pure function of time, about the avatar's own keypoints.

    The mouth stays as it is in the picture: whatever the last packet held open is closed by easing into this.
    """

    source: Keypoints

    def at(self, seconds: float) -> Keypoints:
        """The relative motion `seconds` after it began; at 0 it is at rest."""
        angle = _SWAY_RADIANS * math.sin(2 * math.pi * seconds / _SWAY_PERIOD_S)
        rise = -_BREATH_RISE * (1 - math.cos(2 * math.pi * seconds / _BREATH_PERIOD_S)) / 2
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32)
        pivot = self.source.points.mean(axis=0) + np.array([0.0, 0.6], np.float32)  # the neck
        points = (self.source.points - pivot) @ turn.T + pivot - self.source.points
        points[:, 1] += np.float32(rise)
        jacobians = np.tile(turn, (len(points), 1, 1))
        lid = np.diag([1.0, 1 - (1 - _CLOSED_EYE) * blink(seconds)]).astype(np.float32)
        for eye in EYES:
            jacobians[eye] = jacobians[eye] @ lid
        return Keypoints(points.astype(np.float32), jacobians)


def blink(seconds: float) -> float:
    """How far the eyes are shut, 0 to 1; the first blink comes after the first interval."""
    turn = math.floor(seconds / _BLINK_EVERY_S)
    if turn == 0:
        return 0.0
    # A fixed scramble of the blink's number moves it within its interval, so that the motion stays a function of time.
    start_s = turn * _BLINK_EVERY_S + _BLINK_SPREAD_S * math.modf(turn * 0.618034)[0]
    phase = (seconds - start_s) / _BLINK_LENGTH_S
    return math.sin(math.pi * phase) ** 2 if 0 < phase < 1 else 0.0
