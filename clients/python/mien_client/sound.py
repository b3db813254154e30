"""The sound of a clip or of an audio file, as a speaker's microphone would give it: 48 kHz, 20 ms at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.container import InputContainer

from mien_client.sources import SourceError

RATE_HZ = 48_000
FRAME_SAMPLES = RATE_HZ // 50
FRAME_S = FRAME_SAMPLES / RATE_HZ
#: Sound that is later than this is skipped: newest wins. It is late after a connection was broken.
_TOO_LATE_S = 0.2


class FileSound(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Plays from the moment of `begin`, in real time. loop: repeat it without end; otherwise silence follows.

    Raises SourceError for a file that has no sound. Its frames are encoded by aiortc, with their level in each packet.
    """

    kind = "audio"

    def __init__(self, source: str, loop: bool = False) -> None:
        super().__init__()
        self._loop = loop
        self._source = source
        self._frames = read_sound(source)
        first = next(self._frames, None)
        if first is None:
            raise SourceError(f"{source} has no sound")
        self._first: av.AudioFrame | None = first
        self._begun = asyncio.Event()
        self._start_s = 0.0
        self._given = 0

    def begin(self) -> None:
        """Play from now on; does nothing if it plays."""
        if not self._begun.is_set():
            self._start_s = time.monotonic()
            self._begun.set()

    async def recv(self) -> av.AudioFrame:
        await self._begun.wait()
        if self.readyState != "live":
            raise MediaStreamError("the sound has ended")
        frame = await asyncio.to_thread(self._next) if self._first is None else self._first
        self._first = None
        late_frames = int((time.monotonic() - self._start_s) / FRAME_S) - self._given
        if late_frames * FRAME_S > _TOO_LATE_S:
            frame = await asyncio.to_thread(self._skip, late_frames)
            self._given += late_frames
        frame.pts, frame.time_base, frame.sample_rate = self._given * FRAME_SAMPLES, Fraction(1, RATE_HZ), RATE_HZ
        await asyncio.sleep(self._start_s + self._given * FRAME_SAMPLES / RATE_HZ - time.monotonic())
        self._given += 1
        return frame

    def _skip(self, frames: int) -> av.AudioFrame:
        for _ in range(frames - 1):
            self._next()
        return self._next()

    def _next(self) -> av.AudioFrame:
        frame = next(self._frames, None)
        if frame is None and self._loop:
            self._frames = read_sound(self._source)
            frame = next(self._frames, None)
        return silence() if frame is None else frame


class LoopedVoice(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """A recorded voice in a loop, in real time from the moment of `begin`, in step with a track of the same length.

    Blocks while it is made: it reads the whole file. Raises SourceError.
    """

    kind = "audio"

    def __init__(self, source: str) -> None:
        super().__init__()
        parts = [frame.to_ndarray()[0] for frame in read_sound(source, "mono", keep_rest=True)]
        if not parts:
            raise SourceError(f"{source} has no sound")
        # One turn and a frame more, so that each frame is one slice.
        turn = np.concatenate(parts)
        self._turn_samples = len(turn)
        self._samples = np.resize(turn, len(turn) + FRAME_SAMPLES)
        self._begun = asyncio.Event()
        self._start_s = 0.0
        self._given = 0

    def begin(self, start_s: float) -> None:
        """Play from this monotonic time on."""
        self._start_s = start_s
        self._begun.set()

    def frame_time_s(self, number: int) -> float:
        """The monotonic time at which a frame's first sample is due."""
        return self._start_s + number * FRAME_S

    async def recv(self) -> av.AudioFrame:
        await self._begun.wait()
        if self.readyState != "live":
            raise MediaStreamError("the sound has ended")
        if time.monotonic() - self.frame_time_s(self._given) > _TOO_LATE_S:
            self._given = int((time.monotonic() - self._start_s) / FRAME_S)
        await asyncio.sleep(self.frame_time_s(self._given) - time.monotonic())
        at = self._given * FRAME_SAMPLES % self._turn_samples
        frame = av.AudioFrame.from_ndarray(self._samples[None, at : at + FRAME_SAMPLES], format="s16", layout="mono")
        frame.pts, frame.time_base, frame.sample_rate = self._given * FRAME_SAMPLES, Fraction(1, RATE_HZ), RATE_HZ
        self._given += 1
        return frame


def silence() -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="stereo", samples=FRAME_SAMPLES)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


def has_sound(source: str) -> bool:
    """Whether a file has sound. Blocks. Raises SourceError."""
    with closing(_open(source)) as container:
        return bool(container.streams.audio)


def read_sound(source: str, layout: str = "stereo", keep_rest: bool = False) -> Generator[av.AudioFrame, None, None]:
    """The sound of a file, s16, 48 kHz, 960 samples a frame. Blocks. Raises SourceError.

    keep_rest: whether a shorter last frame is given too.
    """
    with closing(_open(source)) as container:
        if not container.streams.audio:
            raise SourceError(f"{source} has no sound")
        resampler = av.AudioResampler(format="s16", layout=layout, rate=RATE_HZ, frame_size=FRAME_SAMPLES)
        try:
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None
                yield from resampler.resample(frame)
            if keep_rest:
                yield from resampler.resample(None)
        except av.FFmpegError as error:
            raise SourceError(f"the sound of {source} is damaged: {error.strerror}") from error


def _open(source: str) -> InputContainer:
    try:
        return av.open(source)
    except av.FFmpegError as error:
        raise SourceError(f"{source} cannot be opened: {error.strerror}") from error
