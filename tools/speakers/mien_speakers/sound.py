"""Reads the sound of clips, and writes voices as Opus in Ogg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mien_speakers.shift import RATE_HZ, Samples

_FRAME_SAMPLES = RATE_HZ // 50


class NoSound(ValueError):
    """The clip has no sound."""


def sound_of(clip: Path) -> Samples:
    """The sound of a clip, mono, 48 kHz, -1 to 1; its first sample belongs to the time 0 of the clip.

    Raises NoSound, av.FFmpegError.
    """
    with av.open(str(clip)) as container:
        if not container.streams.audio:
            raise NoSound(f"{clip.name} has no sound")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        parts, begins_s = [], None
        for frame in container.decode(container.streams.audio[0]):
            begins_s = frame.time or 0.0 if begins_s is None else begins_s
            frame.pts = None
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    silent = round((begins_s or 0.0) * RATE_HZ)
    samples = np.concatenate(parts).astype(np.float64)
    return np.concatenate([np.zeros(silent), samples]) if silent >= 0 else samples[-silent:]


def write_opus(path: Path, samples: Samples, bit_rate: int) -> None:
    """Write a mono voice as Opus in Ogg. The file's length is that of the samples, exactly."""
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, options={"application": "voip"})
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = "mono", bit_rate
        for start in range(0, len(samples), _FRAME_SAMPLES):
            part = np.round(32767 * np.clip(samples[start : start + _FRAME_SAMPLES], -1, 1)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
