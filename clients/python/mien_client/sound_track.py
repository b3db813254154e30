"""The sound of a recording: each sound is placed beside the pictures of the moment at which it was recorded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from mien_client.voice_packets import VOICE_CLOCK_HZ
from mien_client.whep import ReceivedSound

_FRAME_SAMPLES = 960
_BIT_RATE = 64_000
#: Sounds that wait for the sender's first report, 2 s. If more come, the time of their receipt has to do.
_MOST_WAITING = 100
#: The sound is at most this far behind the pictures; then silence fills the gap.
_MOST_BEHIND_S = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture's time in the recording, and when it was received and recorded (Unix s; None for default motion)."""

    media_s: float
    received_unix_s: float
    captured_unix_s: float | None


class SoundClock:
    """Where sounds lie in a recording. Pure.

    The first sound that can be compared with a picture fixes the place of all: from then on RTP's time counts.
    """

    def __init__(self) -> None:
        self._anchor: tuple[int, int] | None = None

    def place(self, sound: ReceivedSound, moment: Moment, *, must: bool = False) -> int | None:
        """The place of a sound's first sample, in samples since the first picture. None while it is not known.

        must: whether to compare the times of receipt, if those of recording are not known.
        """
        if sound.timestamp is None:
            return None
        if self._anchor is None:
            if sound.captured_unix_s is not None and moment.captured_unix_s is not None:
                since_s = sound.captured_unix_s - moment.captured_unix_s
            elif must:
                since_s = sound.received_unix_s - moment.received_unix_s
            else:
                return None
            self._anchor = (sound.timestamp, round((moment.media_s + since_s) * VOICE_CLOCK_HZ))
        timestamp, place = self._anchor
        return place + (sound.timestamp - timestamp + 2**31) % 2**32 - 2**31


class SoundTrack:
    """Writes sounds into a container, with silence where there are none."""

    def __init__(self, container: OutputContainer) -> None:
        self._container = container
        self._stream = container.add_stream("aac", rate=VOICE_CLOCK_HZ)
        assert isinstance(self._stream, av.AudioStream)
        self._stream.layout, self._stream.bit_rate = "stereo", _BIT_RATE
        self._clock = SoundClock()
        self._waiting: deque[ReceivedSound] = deque()
        self._written = 0

    def add(self, sound: ReceivedSound, moment: Moment) -> None:
        """Add 20 ms. moment: of the newest picture."""
        self._waiting.append(sound)
        must = len(self._waiting) > _MOST_WAITING
        if self._clock.place(sound, moment, must=must) is not None or must:
            self._write_waiting(moment)

    def follow(self, media_s: float) -> None:
        """The pictures have come this far."""
        if not self._waiting:
            self._fill(round((media_s - _MOST_BEHIND_S) * VOICE_CLOCK_HZ))

    def close(self, moment: Moment) -> None:
        """Write what is left. moment: of the last picture."""
        if self._waiting:
            self._clock.place(self._waiting[-1], moment, must=True)
            self._write_waiting(moment)
        self._fill(round(moment.media_s * VOICE_CLOCK_HZ))
        self._container.mux(self._stream.encode(None))

    def _write_waiting(self, moment: Moment) -> None:
        while self._waiting:
            ready = self._waiting.popleft()
            self._write(ready, self._clock.place(ready, moment))

    def _write(self, sound: ReceivedSound, place: int | None) -> None:
        if place is None or place + _FRAME_SAMPLES <= self._written:
            return  # before the first picture, or twice
        self._fill(place)
        samples = np.asarray(sound.sound.to_ndarray(), np.int16).reshape(-1, len(sound.sound.layout.channels))
        both = np.repeat(samples[:, :1], 2, axis=1) if samples.shape[1] == 1 else samples[:, :2]
        self._encode(both[max(0, self._written - place) :])

    def _fill(self, until: int) -> None:
        while (missing := until - self._written) > 0:
            self._encode(np.zeros((min(missing, VOICE_CLOCK_HZ), 2), np.int16))

    def _encode(self, samples: NDArray[np.int16]) -> None:
        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = VOICE_CLOCK_HZ, self._written, Fraction(1, VOICE_CLOCK_HZ)
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))
