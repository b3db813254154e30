"""Where the clips of a track lie in it, and their sounds joined in the same way as their motion. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mien_landmarks.track import FRAMES_PER_SECOND
from mien_speakers.shift import RATE_HZ, Samples

FRAME_SAMPLES = RATE_HZ // FRAMES_PER_SECOND


def cut(sound: Samples, begins_s: float, frames: int) -> Samples:
    """A clip's sound from this time on, as long as so many frames of a track. Silence follows if it is shorter."""
    length = frames * FRAME_SAMPLES
    part = sound[round(begins_s * RATE_HZ) :][:length]
    return np.pad(part, (0, length - len(part)))


def joined(sounds: Sequence[Samples], ease_frames: int) -> Samples:
    """The sound of a looped track: each clip fades into the next, the last into the first, as their motion does.

    See mien_landmarks.track.joined. The fades keep the power.
    """
    ease = ease_frames * FRAME_SAMPLES
    angle = np.pi / 2 * (np.arange(ease) + 0.5) / ease
    parts: list[Samples] = []
    for number, sound in enumerate(sounds):
        following = sounds[(number + 1) % len(sounds)]
        parts += [sound[ease:-ease], np.cos(angle) * sound[-ease:] + np.sin(angle) * following[:ease]]
    return np.concatenate(parts)
