"""Changes a voice so that it is no longer its speaker's: another pitch, and another vocal tract. Pure.

The pitch is shifted by a phase vocoder with the phases locked to the spectrum's peaks (Laroche and Dolson 1999), then
resampled. That moves the formants too, so each frame afterwards gets the original's spectral envelope, warped by the
wanted factor. Envelopes are the cepstral "true envelope" (Imai and Abe 1979; Roebel and Rodet 2005).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
_Spectra = NDArray[np.complex128]

RATE_HZ = 48_000
#: 43 ms: three periods of a low voice.
_WINDOW = 2048
_HOP = 256
_SHAPE = np.hanning(_WINDOW + 1)[:-1]
#: Speech has nothing below this frequency; rooms and microphones do.
_LOWEST_HZ = 70.0
_LOWEST_PITCH_HZ, _HIGHEST_PITCH_HZ = 65.0, 350.0
#: From this autocorrelation on, a stretch of sound counts as voiced.
_VOICED = 0.5
_ENVELOPE_ROUNDS = 12
#: The envelope of a frame is changed by at most this, in nepers (26 dB).
_LARGEST_CHANGE = 3.0


class NoVoice(ValueError):
    """The sound has no voiced part, so it has no pitch."""


def pitch_hz(samples: Samples) -> float:
    """The median pitch of the voiced parts, by autocorrelation. Raises NoVoice."""
    size, step = RATE_HZ // 25, RATE_HZ // 100
    shortest, longest = int(RATE_HZ / _HIGHEST_PITCH_HZ), int(RATE_HZ / _LOWEST_PITCH_HZ)
    loud = 0.3 * np.sqrt(np.mean(samples**2))
    found = []
    for start in range(0, len(samples) - size, step):
        part = samples[start : start + size] - samples[start : start + size].mean()
        if np.sqrt(np.mean(part**2)) < loud or not part.any():
            continue
        correlation = np.fft.irfft(np.abs(np.fft.rfft(part, 2 * size)) ** 2)[: longest + 1]
        correlation /= correlation[0]
        period = shortest + int(correlation[shortest:].argmax())
        if correlation[period] > _VOICED:
            found.append(RATE_HZ / period)
    if not found:
        raise NoVoice("the sound has no voiced part")
    return float(np.median(found))


def altered(samples: Samples, pitch_to_hz: float, formants: float) -> Samples:
    """The same words in step with the original, with another pitch and formants. samples: (N,), 48 kHz.

    pitch_to_hz: the median pitch afterwards. formants: the factor for the resonances' frequencies. Raises NoVoice.
    """
    pitch = pitch_hz(samples)
    shifted = _pitch_shifted(samples, pitch_to_hz / pitch)
    before, after = _spectra(samples), _spectra(shifted)
    wanted = _warped(_envelope(before, pitch), formants)
    change = np.clip(wanted - _envelope(after, pitch_to_hz), -_LARGEST_CHANGE, _LARGEST_CHANGE)
    after *= np.exp(change)
    after[:, np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ) < _LOWEST_HZ] = 0
    return _overlapped(after, _HOP)[: len(samples)]


def _pitch_shifted(samples: Samples, ratio: float) -> Samples:
    """Stretched in time by `ratio`, then resampled to the former length, so that every frequency rises by it."""
    hop = round(_HOP * ratio)
    stretched = _overlapped(_relocked(_spectra(samples), hop), hop)[: round(len(samples) * hop / _HOP)]
    spectrum = np.fft.rfft(stretched)
    resampled = np.zeros(len(samples) // 2 + 1, complex)
    kept = min(len(spectrum), len(resampled))
    resampled[:kept] = spectrum[:kept]
    return np.fft.irfft(resampled, len(samples)) * (len(samples) / len(stretched))


def _relocked(spectra: _Spectra, hop: int) -> _Spectra:
    """Phases for frames that are `hop` samples apart instead of _HOP: peaks advance, their neighbours follow them."""
    advance = 2 * np.pi * np.arange(spectra.shape[1]) * _HOP / _WINDOW
    turned = spectra.copy()
    phases = np.angle(spectra)
    for frame in range(1, len(spectra)):
        deviation = phases[frame] - phases[frame - 1] - advance
        deviation -= 2 * np.pi * np.round(deviation / (2 * np.pi))
        peaks = _peaks(np.abs(spectra[frame]))
        owner = peaks[np.abs(np.arange(len(advance))[:, None] - peaks).argmin(axis=1)]
        angle = np.angle(turned[frame - 1, owner]) + (advance + deviation)[owner] * hop / _HOP
        turned[frame] = spectra[frame] * np.exp(1j * (angle - phases[frame, owner]))
    return turned


def _peaks(magnitude: Samples) -> NDArray[np.intp]:
    """Bins that are larger than their two neighbours on either side."""
    padded = np.pad(magnitude, 2)
    around = np.max([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]], axis=0)
    return np.append(np.flatnonzero(magnitude > around), 0)


def _spectra(samples: Samples) -> _Spectra:
    """(frames, bins): windowed spectra, whose first frame is centred on the first sample."""
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    return np.asarray(np.fft.rfft(frames * _SHAPE), complex)


def _overlapped(spectra: _Spectra, hop: int) -> Samples:
    """The samples of frames that are `hop` apart, added up and divided by what the windows add up to."""
    length = (len(spectra) - 1) * hop + _WINDOW
    total, weight = np.zeros(length), np.zeros(length)
    for number, frame in enumerate(np.fft.irfft(spectra, _WINDOW)):
        part = slice(number * hop, number * hop + _WINDOW)
        total[part] += frame * _SHAPE
        weight[part] += _SHAPE**2
    return (total / np.maximum(weight, 1e-3))[_WINDOW // 2 :]


def _envelope(spectra: _Spectra, pitch: float) -> Samples:
    """(frames, bins): the logarithm of the spectral envelope, which runs over the harmonics' tips."""
    order = int(RATE_HZ / (2 * pitch))
    level = np.log(np.abs(spectra) + 1e-7)
    raised = level
    for _ in range(_ENVELOPE_ROUNDS):
        cepstrum = np.fft.irfft(raised, _WINDOW)
        cepstrum[:, order:-order] = 0
        smooth = np.fft.rfft(cepstrum).real
        raised = np.maximum(level, smooth)
    return np.asarray(smooth)


def _warped(envelope: Samples, factor: float) -> Samples:
    """The envelope with its resonances at `factor` times their frequencies."""
    bins = np.arange(envelope.shape[1])
    return np.stack([np.interp(bins / factor, bins, frame) for frame in envelope])
