"""What is sent for a clip's pictures, and when a missing face is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clip_files import write_clip

from mien_client.live import FaceWatch, speak
from mien_client.outgoing import OutgoingMotion
from mien_client.pictures import ClipPictures, RgbArray
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

ROOT = Path(__file__).parents[2]
SOURCE = Keypoints.from_rows(
    json.loads((ROOT / "services/gateway/mien_gateway/bundled/mien.json").read_text())["keypoints"]
)


class Finder:
    """A finder that finds a face in every picture brighter than a limit."""

    def __init__(self, darkest: float) -> None:
        self._darkest = darkest

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        assert rgb.shape == (48, 64, 3)
        return SOURCE if rgb.mean() > self._darkest else None


class Sent:
    """A clip that is spoken at once: its packets, what the speaker was told, and the account."""

    def __init__(self) -> None:
        self.packets: list[MotionPacket] = []
        self.said: list[str] = []

    async def speak(self, clip: Path, darkest: float) -> str:
        motion, face = OutgoingMotion(SOURCE), FaceWatch("clip.mkv", self.said.append)
        now_s = 50.0

        async def sleep(seconds: float) -> None:
            nonlocal now_s
            now_s += seconds

        async with ClipPictures(str(clip), clock_s=lambda: now_s, sleep=sleep) as pictures:
            await speak(pictures, Finder(darkest), motion, self.packets.append, face)
        face.end()
        return motion.account()


@pytest.fixture
def sent() -> Sent:
    return Sent()


def brightening(path: Path, count: int, fps: int) -> Path:
    """Frames of which each is brighter than the one before: 0, 10, 20 and so on, to 250."""
    pictures = [np.full((48, 64, 3), min(10 * number, 250), np.uint8) for number in range(count)]
    return write_clip(path, pictures, rate=fps, codec="ffv1")


async def test_each_picture_is_sent_with_a_face_or_without(tmp_path: Path, sent: Sent) -> None:
    account = await sent.speak(brightening(tmp_path / "clip.mkv", 12, 25), 45)
    new, default = MotionFlags.NEW_INITIAL_FRAME, MotionFlags.DEFAULT_MOTION
    assert [packet.flags for packet in sent.packets] == [default] * 5 + [new] + [MotionFlags.NONE] * 6
    assert account.startswith("7 frames with the speaker's motion; 0 rejected and 5 without a face")
    assert sent.said == []


async def test_five_seconds_without_a_face_are_said_once(tmp_path: Path, sent: Sent) -> None:
    await sent.speak(brightening(tmp_path / "clip.mkv", 24, 2), 255)
    assert len(sent.packets) == 24
    assert sent.said == ["no face found in clip.mkv yet: the avatar plays its default motion"]


async def test_a_face_in_time_is_not_missed_later(tmp_path: Path, sent: Sent) -> None:
    await sent.speak(brightening(tmp_path / "clip.mkv", 24, 2), 85)  # from the tenth picture on, after 4.5 s
    assert sent.said == []


async def test_a_short_clip_without_a_face_is_said_at_its_end(tmp_path: Path, sent: Sent) -> None:
    await sent.speak(brightening(tmp_path / "clip.mkv", 5, 25), 255)
    assert sent.said == ["no face found in clip.mkv: the avatar played its default motion"]
