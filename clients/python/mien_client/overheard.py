"""A voice on its way out that is overheard: it opens the mouth of an avatar whose speaker shows no face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import av
from aiortc import MediaStreamTrack

from mien_client.outgoing import OutgoingMotion
from mien_client.speaking import capture_clock_ms
from mien_encoder.voice_mouth import FloatSeries, VoiceBands
from mien_shared.wire.motion import MotionPacket

_PACKETS_PER_S = 30
_FULL_SCALE = 32_768


class OverheardVoice(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """What the source gives (s16), unchanged.

    listener: called with each measurement of VoiceBands and its monotonic time, None for nobody. It may be set later.
    """

    kind = "audio"

    def __init__(self, source: MediaStreamTrack) -> None:
        super().__init__()
        self._source = source
        self._bands: VoiceBands | None = None
        self.listener: Callable[[Sequence[float], float], None] | None = None

    async def recv(self) -> av.AudioFrame:
        frame: av.AudioFrame = await self._source.recv()
        if self.listener is not None:
            self._bands = self._bands or VoiceBands(frame.sample_rate)
            for levels in self._bands.push(mono(frame)):
                self.listener(levels, time.monotonic())
        return frame

    def stop(self) -> None:
        super().stop()
        self._source.stop()


def mono(frame: av.AudioFrame) -> FloatSeries:
    """The samples of an s16 frame, -1 to 1: the mean of its channels."""
    channels = len(frame.layout.channels)
    samples: FloatSeries = frame.to_ndarray().reshape(-1, channels).mean(axis=1) / _FULL_SCALE
    return samples


async def faceless(motion: OutgoingMotion) -> AsyncGenerator[MotionPacket, None]:
    """Packets of a speaker without a camera, 30 a second: default motion, whose mouth the voice opens. Never ends."""
    start_s = time.monotonic()
    number = 0
    while True:
        await asyncio.sleep(start_s + number / _PACKETS_PER_S - time.monotonic())
        # After a pause of this process the next packet is the one that is due now.
        number = max(number, int((time.monotonic() - start_s) * _PACKETS_PER_S)) + 1
        yield motion.packet(None, time.monotonic(), capture_clock_ms())
