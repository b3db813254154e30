"""The mouth of a participant without a camera: how far a voice opens it.

The loudness of three bands of the voice, against how loud this voice usually is, predicts how far the lips are apart: a
linear prediction, fitted on clips whose sound is in step with their pictures (tools/voice_mouth). It correlates better
with the lips of people that it was not fitted on than the level alone does, because a hiss is loud and needs no open
mouth; a small network gained nothing more (docs/decisions/0026-mouth-by-voice.md).

Pure: the caller passes the time. `clients/js/motion/voice_mouth.js` computes the same; vectors in
tests/shared/wire/vectors hold both together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Loudness is measured so often.
HOP_S = 0.02
#: Edges of the three bands in hertz.
BANDS_HZ = (100.0, 700.0, 2000.0, 6000.0)
#: Samples that one measurement looks at: 21 ms at 48 kHz.
WINDOW_SAMPLES = 1024
#: What silence measures, decibels below full scale.
SILENCE_DB = -100.0

# --- fitted by tools/voice_mouth ---
#: Share of each band, and what the sum of a wide open mouth is; with the mouth shut it is 0.
_WEIGHTS = (-0.017, 0.451, 0.142)
_OPEN = 0.48
# --- end ---

#: Loudness below the usual one by this much counts as silence.
_RANGE_DB = 60.0
#: The usual loudness follows louder sound within this time, and falls slowly. It begins as that of a quiet microphone.
_USUAL_RISES_S = 0.1
_USUAL_FALLS_DB_S = 1.0
_USUAL_AT_FIRST_DB = -30.0
_USUAL_AT_LEAST_DB = -50.0
#: The noise of the room is what remains between words. It follows quieter sound soon, and louder sound slowly.
_NOISE_AT_FIRST_DB = -70.0
_NOISE_RISES_DB_S = 4.0
_NOISE_FALL = 0.3  # share of the distance, each HOP_S
#: Sound this much above the noise begins to open the mouth, and opens it as far as it would without noise.
_GATE_DB = (8.0, 14.0)
#: The mouth follows a change by two thirds within these times.
_OPENS_S = 0.015
_SHUTS_S = 0.045
#: After this long without sound the microphone counts as off.
_DEAF_AFTER_S = 0.1

FloatSeries = NDArray[np.float64]


class VoiceBands:
    """Measures the loudness of a voice in three bands, every HOP_S. rate_hz: of the samples, 16,000 or more."""

    def __init__(self, rate_hz: int) -> None:
        if rate_hz < 16_000:
            raise ValueError(f"a voice needs 16000 samples a second or more, not {rate_hz}")
        self._hop = round(rate_hz * HOP_S)
        self._window = np.sin(np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES) ** 2
        edges = [math.ceil(edge * WINDOW_SAMPLES / rate_hz) for edge in BANDS_HZ]
        self._bins = list(pairwise(edges))
        # Makes a band's sum the mean square of its part of the samples.
        self._scale = 2 / (WINDOW_SAMPLES * float(np.sum(self._window**2)))
        self._recent = np.zeros(WINDOW_SAMPLES)
        self._until_next = self._hop

    def push(self, samples: FloatSeries) -> list[tuple[float, ...]]:
        """The measurements that these samples (mono, -1 to 1) complete: decibels below full scale of each band."""
        measured = []
        at = 0
        while len(samples) - at >= self._until_next:
            part = samples[at : at + self._until_next]
            at += len(part)
            self._remember(part)
            self._until_next = self._hop
            measured.append(self._measure())
        rest = samples[at:]
        self._remember(rest)
        self._until_next -= len(rest)
        return measured

    def _remember(self, samples: FloatSeries) -> None:
        if len(samples):
            self._recent = np.concatenate([self._recent, samples])[-WINDOW_SAMPLES:]

    def _measure(self) -> tuple[float, ...]:
        power = np.abs(np.fft.rfft(self._recent * self._window)) ** 2 * self._scale
        return tuple(decibels(float(power[low:high].sum())) for low, high in self._bins)


class VoiceMouth:
    """How far a voice opens the mouth. Pure: fed with the measurements of VoiceBands.

    usual_db: how loud this voice usually is, as learned so far.
    """

    def __init__(self) -> None:
        self.usual_db = _USUAL_AT_FIRST_DB
        self._noise_db = _NOISE_AT_FIRST_DB
        self._opening = 0.0
        self._heard_s = -math.inf

    def hear(self, bands_db: Sequence[float], time_s: float) -> None:
        """Take one measurement, which is made every HOP_S. time_s: by the clock of the packets."""
        target = self._target(bands_db)
        opening = self.opening(time_s)
        follows_s = _OPENS_S if target > opening else _SHUTS_S
        self._opening = opening + (target - opening) * (1 - math.exp(-HOP_S / follows_s))
        self._heard_s = max(time_s, self._heard_s)

    def opening(self, time_s: float) -> float:
        """How far the mouth is open, 0 to 1. Without sound it shuts."""
        deaf_s = time_s - self._heard_s - _DEAF_AFTER_S
        return self._opening if deaf_s <= 0 else self._opening * math.exp(-deaf_s / _SHUTS_S)

    def _target(self, bands_db: Sequence[float]) -> float:
        level_db = decibels(sum(10 ** (band / 10) for band in bands_db))
        self._learn(level_db)
        share = sum(
            weight * min(max((band - self.usual_db) / _RANGE_DB + 1, 0.0), 1.5)
            for weight, band in zip(_WEIGHTS, bands_db, strict=True)
        )
        low, high = _GATE_DB
        above_noise = min(max((level_db - self._noise_db - low) / (high - low), 0.0), 1.0)
        return above_noise * min(max(share / _OPEN, 0.0), 1.0)

    def _learn(self, level_db: float) -> None:
        self.usual_db = max(self.usual_db - _USUAL_FALLS_DB_S * HOP_S, _USUAL_AT_LEAST_DB)
        if level_db > self.usual_db:
            self.usual_db += (level_db - self.usual_db) * (1 - math.exp(-HOP_S / _USUAL_RISES_S))
        if level_db < self._noise_db:
            self._noise_db += (level_db - self._noise_db) * _NOISE_FALL
        else:
            self._noise_db += _NOISE_RISES_DB_S * HOP_S


def decibels(power: float) -> float:
    """Decibels below full scale of a mean square, SILENCE_DB at least."""
    return max(SILENCE_DB, 10 * math.log10(max(power, 1e-12)))
