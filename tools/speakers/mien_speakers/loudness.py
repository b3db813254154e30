"""Loudness of speech (ITU-R BS.1770-5, mono), and a voice set to a wanted one. Pure."""

from __future__ import annotations

import numpy as np

from mien_speakers.shift import RATE_HZ, Samples

_BLOCK, _STEP = RATE_HZ * 2 // 5, RATE_HZ // 10
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, 10.0
#: BS.1770-5 tables 1 and 2: numerators and denominators of the two filters at 48 kHz.
_FILTERS = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
#: The largest sample of a voice that is set to a loudness. Above _BEND samples are rounded off towards it.
_PEAK, _BEND = 0.89, 0.6


class TooQuiet(ValueError):
    """The sound has no part that is loud enough to be measured."""


def loudness_lufs(samples: Samples) -> float:
    """The integrated loudness, gated. Raises TooQuiet."""
    weighted = _weighted(samples)
    blocks = [weighted[at : at + _BLOCK] for at in range(0, max(1, len(weighted) - _BLOCK + 1), _STEP)]
    power = np.array([np.mean(block**2) for block in blocks])
    power = power[_lufs(power) > _ABSOLUTE_GATE_LUFS]
    if not len(power):
        raise TooQuiet("the sound is too quiet to be measured")
    power = power[_lufs(power) > _lufs(power.mean()) - _RELATIVE_GATE_LU]
    return float(_lufs(power.mean()))


def at_loudness(samples: Samples, wanted_lufs: float) -> Samples:
    """The sound at this loudness; peaks are rounded off. Raises TooQuiet."""
    loud = samples * 10 ** ((wanted_lufs - loudness_lufs(samples)) / 20)
    over = np.maximum(np.abs(loud) - _BEND, 0) / (_PEAK - _BEND)
    return np.asarray(np.sign(loud) * (np.minimum(np.abs(loud), _BEND) + (_PEAK - _BEND) * np.tanh(over)))


def _weighted(samples: Samples) -> Samples:
    """Filtered by the K weighting, in the frequency domain."""
    size = len(samples) + RATE_HZ  # room for the filters to ring out
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    response = np.ones_like(turn)
    for numerator, denominator in _FILTERS:
        response *= np.polyval(numerator[::-1], turn) / np.polyval(denominator[::-1], turn)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)]


def _lufs(power: Samples | np.floating) -> Samples:
    return np.asarray(_OFFSET_LUFS + 10 * np.log10(np.maximum(power, 1e-12)))
