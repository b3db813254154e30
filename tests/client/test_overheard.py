"""A voice that is overheard on its way out moves the mouth of a speaker without a camera."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from aiortc import MediaStreamTrack

from mien_client.outgoing import OutgoingMotion
from mien_client.overheard import OverheardVoice, faceless, mono
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

RATE_HZ, FRAME_SAMPLES = 48_000, 960
BUNDLED = Path(__file__).parents[2] / "services/gateway/mien_gateway/bundled/mien.json"
SOURCE = Keypoints.from_rows(json.loads(BUNDLED.read_text())["keypoints"])


class Tone(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """A voice in stereo, 20 ms at a time, as fast as it is asked for."""

    kind = "audio"

    def __init__(self, amplitude: float = 0.2) -> None:
        super().__init__()
        self._amplitude = amplitude
        self._given = 0

    async def recv(self) -> av.AudioFrame:
        times_s = (self._given + np.arange(FRAME_SAMPLES)) / RATE_HZ
        samples = (32_767 * self._amplitude * np.sin(2 * np.pi * 1000 * times_s)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(samples, 2)[None], format="s16", layout="stereo")
        frame.pts, frame.time_base, frame.sample_rate = self._given, Fraction(1, RATE_HZ), RATE_HZ
        self._given += FRAME_SAMPLES
        return frame


def lips(packet: MotionPacket) -> float:
    points = packet.keypoints.points
    return float(points[FaceKeypoint.LOWER_LIP, 1] - points[FaceKeypoint.UPPER_LIP, 1])


async def test_the_voice_passes_unchanged_and_is_measured() -> None:
    heard: list[Sequence[float]] = []
    overheard, plain = OverheardVoice(Tone()), Tone()
    first = await overheard.recv()  # nobody listens yet
    assert first.to_ndarray().tobytes() == (await plain.recv()).to_ndarray().tobytes()
    overheard.listener = lambda levels, time_s: heard.append(levels)
    for _ in range(9):
        assert (await overheard.recv()).to_ndarray().tobytes() == (await plain.recv()).to_ndarray().tobytes()
    assert len(heard) == 9
    assert abs(heard[-1][1] - 10 * np.log10(0.2**2 / 2)) < 0.5
    assert heard[-1][0] < -60 and heard[-1][2] < -60


async def test_mono_is_the_mean_of_the_channels() -> None:
    frame = await Tone(0.5).recv()
    assert mono(frame).shape == (FRAME_SAMPLES,)
    assert abs(np.abs(mono(frame)).max() - 0.5) < 0.01


async def test_stopping_stops_the_source() -> None:
    source = Tone()
    OverheardVoice(source).stop()
    assert source.readyState == "ended"


async def test_a_face_without_a_camera_speaks() -> None:
    motion = OutgoingMotion(SOURCE)
    voice = OverheardVoice(Tone())
    voice.listener = motion.hear
    sequences: list[int] = []
    async with asyncio.timeout(30), aclosing(faceless(motion)) as packets:
        async for packet in packets:
            assert packet.flags & MotionFlags.DEFAULT_MOTION
            sequences.append(packet.sequence)
            if lips(packet) > 0.03:
                break
            await voice.recv()
        while True:  # the voice has ended
            packet = await anext(packets)
            sequences.append(packet.sequence)
            if lips(packet) < 0.003:
                break
    assert sequences == list(range(len(sequences)))
