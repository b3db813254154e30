"""The sound of a clip or of an audio file, as a speaker's microphone would give it: 48 kHz, 20 ms at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.container import InputContainer

from mien_client.sources import SourceError

RATE_HZ = 48_000
FRAME_SAMPLES = RATE_HZ // 50


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
        frame.pts, frame.time_base, frame.sample_rate = self._given * FRAME_SAMPLES, Fraction(1, RATE_HZ), RATE_HZ
        await asyncio.sleep(self._start_s + self._given * FRAME_SAMPLES / RATE_HZ - time.monotonic())
        self._given += 1
        return frame

    def _next(self) -> av.AudioFrame:
        frame = next(self._frames, None)
        if frame is None and self._loop:
            self._frames = read_sound(self._source)
            frame = next(self._frames, None)
        return silence() if frame is None else frame


def silence() -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="stereo", samples=FRAME_SAMPLES)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


def read_sound(source: str) -> Generator[av.AudioFrame, None, None]:
    """The sound of a file, s16, stereo, 48 kHz, 960 samples a frame. Blocks. Raises SourceError."""
    with closing(_open(source)) as container:
        if not container.streams.audio:
            raise SourceError(f"{source} has no sound")
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=RATE_HZ, frame_size=FRAME_SAMPLES)
        try:
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None
                yield from resampler.resample(frame)
        except av.FFmpegError as error:
            raise SourceError(f"the sound of {source} is damaged: {error.strerror}") from error


def _open(source: str) -> InputContainer:
    try:
        return av.open(source)
    except av.FFmpegError as error:
        raise SourceError(f"{source} cannot be opened: {error.strerror}") from error
