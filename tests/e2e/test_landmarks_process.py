"""The landmark tool as `mien send` runs it: a child process in its own environment, with a real clip as input."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from mien_landmarks.serve import HEADER, NO_FACE
from mien_shared.keypoints import FaceKeypoint
from mien_shared.wire.motion import MotionFlags, MotionPacket
from mien_shared.wire.motion_v1 import PACKET_BYTES

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-landmarks/bin/python"
CLIP = ROOT.parent / "shared/data/clips/obama_wa_05.mp4"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PYTHON.exists(), reason="no landmark environment: `make landmarks` makes it"),
    pytest.mark.skipif(not CLIP.exists(), reason="no clips in ../shared/data"),
]


def answers_to(questions: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PYTHON, "-m", "mien_landmarks", "serve"], input=questions, capture_output=True, check=False)


def pictures_of(clip: Path, every: int) -> bytes:
    asked = b""
    with av.open(str(clip)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % every == 0:
                asked += HEADER.pack(frame.width, frame.height, round((frame.time or 0) * 1000))
                asked += frame.to_ndarray(format="rgb24").tobytes()
    return asked


def test_a_clip_becomes_motion_with_its_blink() -> None:
    done = answers_to(pictures_of(CLIP, every=1))
    assert done.returncode == 0
    answers = [done.stdout[i : i + PACKET_BYTES] for i in range(0, len(done.stdout), PACKET_BYTES)]
    packets = [MotionPacket.unpack(answer) for answer in answers]
    assert len(packets) == 74
    assert [packet.sequence for packet in packets] == list(range(74))
    assert packets[0].flags == MotionFlags.NEW_INITIAL_FRAME
    lids = np.array([packet.keypoints.jacobians[FaceKeypoint.LEFT_EYE, 1, 1] for packet in packets])
    assert lids.min() < 0.35  # the speaker blinks once in this clip
    assert 0.7 < np.median(lids) < 1.4


def test_a_picture_without_a_face_is_answered_so() -> None:
    grey = HEADER.pack(320, 240, 0) + bytes([128]) * (320 * 240 * 3)
    done = answers_to(grey * 3)
    assert done.returncode == 0
    assert done.stdout == NO_FACE * 3


def test_input_that_stops_within_a_picture_is_named() -> None:
    done = answers_to(HEADER.pack(320, 240, 0) + bytes(10))
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"mien_landmarks: the input ends within a picture of 320x240" in done.stderr
