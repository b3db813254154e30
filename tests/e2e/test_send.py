"""`mien send`, run as a user runs it: the face in a clip moves an avatar, and the summary counts every picture."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import MATRICES, turned, write_clip, write_sound
from e2e.system import System

from mien_client.api import MienClient
from mien_client.launcher import Stack, StackOptions
from mien_shared.http.tokens import VIEWER_GRANTS, TokenIssuer

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


async def test_the_sound_of_a_file_is_sent_beside_the_motion(system: System, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", [np.full((90, 160, 3), 90, np.uint8)] * 60)
    write_sound(tmp_path / "sound.wav", "pcm_s16le")
    audio = ["--audio", str(tmp_path / "sound.wav")]
    status, said = await send(str(tmp_path / "clip.mp4"), "--url", system.stack.url, *audio)
    assert status == 0, said
    assert sum(account_of(said)[1:4]) > 0
    assert await system.metric("signaling", "mien_voice_packets_received_total", result="accepted") > 20
    assert await system.metric("signaling", "mien_whip_motion_packets_total", result="accepted") > 5


async def test_a_file_without_sound_is_named(system: System, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", [np.full((90, 160, 3), 90, np.uint8)] * 3)
    clip = str(tmp_path / "clip.mp4")
    status, said = await send(clip, "--url", system.stack.url, "--audio", clip)
    assert status != 0
    assert f"{clip} has no sound" in said and "Traceback" not in said


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
    assert f"no face found in {clip}: the avatar played its default motion" in said


def phone_clip(path: Path, degrees: int) -> Path:
    """A speaker, filmed with a phone that is turned by so many degrees."""
    with av.open(str(CLIP)) as container:
        frames = islice(container.decode(video=0), 30)
        shown = [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in frames]
    stored = [np.ascontiguousarray(np.rot90(rgb, -degrees // 90)) for rgb in shown]
    return turned(write_clip(path, stored, rate=30), MATRICES[str(degrees)])


@pytest.mark.skipif(not CLIP.exists(), reason="no clips in ../shared/data")
@pytest.mark.parametrize("degrees", [90, 180])
async def test_a_phones_clip_is_sent_upright(system: System, tmp_path: Path, degrees: int) -> None:
    status, said = await send(str(phone_clip(tmp_path / "phone.mp4", degrees)), "--url", system.stack.url)
    assert status == 0, said
    _, accepted, rejected, lost, _, _ = account_of(said)
    assert accepted > 0.8 * (accepted + rejected + lost), said
    assert "no face found" not in said


@pytest.mark.skipif(not CLIP.exists(), reason="no clips in ../shared/data")
async def test_a_clip_that_was_cut_out_of_a_stream_is_sent(system: System, tmp_path: Path) -> None:
    path = tmp_path / "cut.ts"
    with av.open(str(CLIP)) as source, av.open(str(path), "w") as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        assert video.time_base is not None
        for packet in source.demux(video):
            if packet.dts is not None and packet.pts is not None:
                packet.pts += round(3600 / video.time_base)
                packet.dts += round(3600 / video.time_base)
                packet.stream = stream
                container.mux(packet)
    async with asyncio.timeout(60):
        status, said = await send(str(path), "--url", system.stack.url)
    assert status == 0, said
    packets, accepted, *_ = account_of(said)
    assert packets > 30
    assert accepted > 30


async def test_what_is_no_clip_is_said_in_one_line(tmp_path: Path) -> None:
    """It is found out before a service is asked."""
    sound = write_sound(tmp_path / "sound.m4a", "aac")
    for source, says in (
        ("nowhere.mp4", "nowhere.mp4 cannot be read: No such file or directory"),
        (str(sound), f"{sound} has no video, only sound"),
    ):
        status, said = await send(source, "--url", "http://127.0.0.1:9")
        assert (status, said) == (1, f"Error: {says}\n")


async def watch(*arguments: str) -> tuple[int, str]:
    """The exit status and the standard error of `mien watch`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mien_client", "watch", *arguments), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_token_that_has_expired_is_said_in_one_line() -> None:
    key, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    options = StackOptions(
        gateway_port=0,
        signaling_port=0,
        generator_env={
            "MIEN_DEMO_OPEN": "false",
            "MIEN_API_KEYS": key,
            "MIEN_TOKEN_SECRET": secret,
            "MIEN_FACE_BACKEND": "warp",
        },
    )
    async with Stack(options) as stack, MienClient(stack.url, key) as mien:
        session = await mien.create_session("mien")
        expired = TokenIssuer(secret).issue(session.session_id, VIEWER_GRANTS, 60, time.time() - 3600)
        for url in (session.whep_url, f"{stack.url}/#session={session.session_id}"):
            status, said = await watch(url, "--token", expired)
            assert status == 1
            assert re.fullmatch(r"Error: .*expired.*\(401 token-\S+\)\n", said), said
            assert expired not in said
