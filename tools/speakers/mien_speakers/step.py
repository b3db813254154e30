"""Measures whether a voice is in step with the lips of a motion track. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien_landmarks.track import FRAMES_PER_SECOND
from mien_shared.keypoints import FaceKeypoint
from mien_shared.wire.track import MotionTrack
from mien_speakers.shift import RATE_HZ, Samples

_TICKS_PER_S = 200
_FURTHEST_S = 0.4
#: Loudness below this share of the loud parts is noise of the room.
_FLOOR = 0.03
#: Slower changes are the head's and the sentence's, not the mouth's.
_SLOWEST_HZ, _FASTEST_HZ = 0.7, 8.0


@dataclass(frozen=True, slots=True)
class Step:
    """correlation: of mouth opening and loudness, where they agree best.

    voice_late_s: how much later than the mouth the voice is. unmoved: the correlation as voice and track are.
    """

    correlation: float
    voice_late_s: float
    unmoved: float


def mouth_opening(track: MotionTrack) -> Samples:
    """(frames,) how much further apart the lips are than in the initial frame, in crop units."""
    lower = np.array([packet.keypoints.points[FaceKeypoint.LOWER_LIP, 1] for packet in track.packets], np.float64)
    upper = np.array([packet.keypoints.points[FaceKeypoint.UPPER_LIP, 1] for packet in track.packets], np.float64)
    return lower - upper


def step_of(track: MotionTrack, voice: Samples) -> Step:
    """Compare a looped track with its voice, (N,) at 48 kHz: the cross-correlation of opening and loudness."""
    seconds = len(track.packets) / FRAMES_PER_SECOND
    ticks = np.arange(round(seconds * _TICKS_PER_S)) / _TICKS_PER_S
    opening = np.interp(ticks, np.arange(len(track.packets)) / FRAMES_PER_SECOND, mouth_opening(track))
    size = RATE_HZ // _TICKS_PER_S
    power = np.mean(np.pad(voice, (0, size * len(ticks)))[: size * len(ticks)].reshape(-1, size) ** 2, axis=1)
    loudness = np.log(np.sqrt(power) / np.sqrt(np.quantile(power, 0.95)) + _FLOOR)
    mouth, sound = _speech_band(opening), _speech_band(loudness)
    correlation = np.fft.irfft(np.fft.rfft(sound) * np.conj(np.fft.rfft(mouth)), len(mouth))
    correlation /= np.linalg.norm(mouth) * np.linalg.norm(sound)
    furthest = int(_FURTHEST_S * _TICKS_PER_S)
    shifts = np.arange(-furthest, furthest + 1)
    best = int(correlation[shifts].argmax())
    return Step(float(correlation[shifts[best]]), float(shifts[best]) / _TICKS_PER_S, float(correlation[0]))


def _speech_band(values: Samples) -> Samples:
    """What changes as fast as syllables do."""
    spectrum = np.fft.rfft(values)
    hz = np.fft.rfftfreq(len(values), 1 / _TICKS_PER_S)
    spectrum[(hz < _SLOWEST_HZ) | (hz > _FASTEST_HZ)] = 0
    return np.fft.irfft(spectrum, len(values))
