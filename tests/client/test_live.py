"""A clip's pictures at its own pace, and what is sent for them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mien_client.live import Picture, Pictures, RgbArray, speak
from mien_client.outgoing import OutgoingMotion
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

ROOT = Path(__file__).parents[2]
SOURCE = Keypoints.from_rows(
    json.loads((ROOT / "services/gateway/mien_gateway/bundled/mien.json").read_text())["keypoints"]
)
FRAMES, FPS = 12, 25


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Half a second at 25 frames a second, each frame brighter than the one before."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


class Time:
    """A clock that moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def clock_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def number_of(picture: Picture) -> int:
    return round(float(picture.frame.to_ndarray(format="rgb24").mean()) / 10)


async def taken(clip: str, work_s: float, count: int, loop: bool = False) -> tuple[list[tuple[float, int]], int]:
    """(time, number) of `count` pictures that each take `work_s` to process, and how many were skipped."""
    time = Time()
    pictures = Pictures(clip, loop, time.clock_s, time.sleep)
    seen: list[tuple[float, int]] = []
    async for picture in pictures:
        seen.append((picture.time_s, number_of(picture)))
        time.now_s += work_s
        if len(seen) == count:
            break
    return seen, pictures.late


async def test_every_picture_comes_at_its_time(clip: str) -> None:
    seen, late = await taken(clip, 0.01, FRAMES)
    assert [number for _, number in seen] == list(range(FRAMES))
    assert [at_s for at_s, _ in seen] == pytest.approx([50 + i / FPS for i in range(FRAMES)])
    assert late == 0


async def test_a_slow_taker_gets_the_newest_and_the_rest_is_counted(clip: str) -> None:
    seen, late = await taken(clip, 0.24, FRAMES)
    assert [number for _, number in seen] == [0, 4, 10]
    assert late == FRAMES - 3


async def test_a_loop_goes_on_in_rising_time(clip: str) -> None:
    seen, _ = await taken(clip, 0.01, 3 * FRAMES, loop=True)
    assert [number for _, number in seen] == list(range(FRAMES)) * 3
    times = [at_s for at_s, _ in seen]
    assert all(np.diff(times) > 0)


class Finder:
    """A finder that finds a face in every picture brighter than a limit."""

    def __init__(self, darkest: float) -> None:
        self._darkest = darkest

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        assert rgb.shape == (48, 64, 3)
        return SOURCE if rgb.mean() > self._darkest else None


async def test_each_picture_is_sent_with_a_face_or_without(clip: str) -> None:
    time = Time()
    sent: list[MotionPacket] = []
    motion = OutgoingMotion(SOURCE)
    await speak(Pictures(clip, clock_s=time.clock_s, sleep=time.sleep), Finder(45), motion, sent.append)
    new, default = MotionFlags.NEW_INITIAL_FRAME, MotionFlags.DEFAULT_MOTION
    assert [packet.flags for packet in sent] == [default] * 5 + [new] + [MotionFlags.NONE] * 6
    assert motion.account().startswith("7 frames with the speaker's motion; 0 rejected and 5 without a face")
