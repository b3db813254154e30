"""`mien send`, run as a user runs it: the face in a clip moves an avatar, and the summary counts every picture."""

from __future__ import annotations

import asyncio
import re
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from e2e.system import System

ROOT = Path(__file__).parents[2]
CLIP = ROOT.parent / "shared/data/clips/obama_wa_05.mp4"
FACE_LOST = ROOT.parent / "shared/data/edge/face_lost.mov"
ACCOUNT = re.compile(
    r"Sent (\d+) packets: (\d+) frames with the speaker's motion; (\d+) rejected and (\d+) without a face,"
    r" replaced by default motion; (\d+) initial frames; (\d+) pictures skipped as too late"
)

pytestmark = pytest.mark.e2e
needs_landmarks = pytest.mark.skipif(
    not (ROOT / ".venv-landmarks/bin/python").exists(), reason="no landmark environment: `make landmarks` makes it"
)


async def send(*arguments: str) -> tuple[int, str]:
    """The exit status and the standard error of `mien send`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mien_client", "send", *arguments), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def account_of(said: str) -> list[int]:
    """The numbers of the summary: packets, accepted, rejected, lost, initial frames, late."""
    found = ACCOUNT.search(said)
    assert found, said
    return [int(number) for number in found.groups()]


@pytest.mark.skipif(not CLIP.exists(), reason="no clips in ../shared/data")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--smoothing", "savitzky-golay"],
        ["--smoothing", "none", "--no-judgement"],
        pytest.param(["--tracker", "landmarks"], marks=needs_landmarks),
    ],
)
async def test_a_clip_is_sent_as_its_speakers_motion(system: System, options: list[str]) -> None:
    status, said = await send(str(CLIP), "--url", system.stack.url, *options)
    assert status == 0, said
    packets, accepted, rejected, lost, initial_frames, late = account_of(said)
    assert accepted + rejected + lost + late == 74, "every picture of the clip is accounted for"
    assert packets <= accepted + rejected + lost
    assert accepted > 0.8 * (accepted + rejected + lost)
    assert initial_frames >= 1
    assert await system.metric("generator", "mien_generated_frames_total", motion="speaker") > 5


@pytest.mark.skipif(not FACE_LOST.exists(), reason="no edge cases in ../shared/data")
async def test_a_face_that_leaves_is_followed_by_default_motion(system: System) -> None:
    status, said = await send(str(FACE_LOST), "--url", system.stack.url)
    assert status == 0, said
    _, accepted, _, lost, initial_frames, late = account_of(said)
    assert accepted + late > 30, "the first half of the clip has a face"
    assert lost + late > 60, "the second half has none"
    assert initial_frames >= 1


async def test_a_clip_without_a_face_is_default_motion(system: System, tmp_path: Path) -> None:
    clip = tmp_path / "grey.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    status, said = await send(str(clip), "--url", system.stack.url)
    assert status == 0, said
    _, accepted, rejected, lost, initial_frames, late = account_of(said)
    assert (accepted, rejected, initial_frames) == (0, 0, 0)
    assert lost + late == 30


@pytest.mark.parametrize(
    ("source", "says"),
    [("nowhere.mp4", "No such file or directory: 'nowhere.mp4'"), (__file__, "Invalid data found")],
)
async def test_what_is_no_clip_is_said_in_one_line(system: System, source: str, says: str) -> None:
    status, said = await send(source, "--url", system.stack.url)
    assert status == 1
    assert says in said
    assert "Traceback" not in said
