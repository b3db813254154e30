"""Smooth curves that limit and fade the motions of `warp`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import FloatArray

Floats = NDArray[np.floating]


def smoothstep(values: Floats, low: float = 0.0, high: float = 1.0) -> FloatArray:
    """0 below low, 1 above high, smooth between."""
    t = np.minimum(np.maximum((values - low) / (high - low), 0), 1)
    step: FloatArray = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def ramp(at: Floats, low: float, high: float) -> FloatArray:
    """1 between low and high, falls smoothly to exactly 0 at -1 and 1."""
    return smoothstep(np.minimum((at + 1) / (low + 1), (1 - at) / (1 - high)))


def fade(at: float, low: float, high: float) -> float:
    """`ramp` of one number."""
    t = min(max(min((at + 1) / (low + 1), (1 - at) / (1 - high)), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def softening(squared_length: float, limit: float) -> float:
    """Factor that keeps a vector below `limit`, from its squared length. It is about 1 up to half of the limit."""
    share = squared_length / (limit * limit)
    return 1 / math.sqrt(math.sqrt(1 + share * share))
