"""`mien send`: a real face in a clip or before a camera, found by the landmark tool, sent as motion.

The landmark tool (tools/landmarks) has an environment of its own and runs as a child process; its protocol stands in
its serve.py: a picture in, a motion packet or "no face" out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from mien_client.api import MienClient, Session
from mien_client.demo import avatar_of, speaking_session
from mien_client.speaking import capture_clock_ms, play
from mien_client.track import MotionTrack
from mien_client.uplink import Uplink
from mien_shared.motion import PACKET_BYTES, MotionPacket

#: Where `make landmarks` puts the tool's environment, seen from a checkout.
_ENVIRONMENT = Path(__file__).parents[3] / ".venv-landmarks"
_QUESTION = struct.Struct("<HHI")
_NO_FACE = bytes(PACKET_BYTES)
#: Longest side of the pictures that the tool is asked about; landmarks want no more.
_LONGEST_SIDE = 640

RgbArray = NDArray[np.uint8]


class LandmarksError(RuntimeError):
    """The landmark tool is not installed, or ended by itself."""


class LandmarkTool:
    """The landmark tool as a child process; an async context manager."""

    def __init__(self) -> None:
        self._python = Path(os.environ.get("MIEN_LANDMARKS_PYTHON", _ENVIRONMENT / "bin" / "python"))
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        if not self._python.exists():
            raise LandmarksError(
                "the landmark tool is not installed: run `make landmarks`, or name its Python in MIEN_LANDMARKS_PYTHON"
            )
        self._process = await asyncio.create_subprocess_exec(
            str(self._python),
            "-m",
            "mien_landmarks",
            "serve",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def find(self, rgb: RgbArray, capture_ms: int) -> MotionPacket | None:
        """The motion of the face in a picture, (H, W, 3) uint8; None where there is no face."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        height, width = rgb.shape[:2]
        try:
            self._process.stdin.write(_QUESTION.pack(width, height, capture_ms) + rgb.tobytes())
            await self._process.stdin.drain()
            answer = await self._process.stdout.readexactly(PACKET_BYTES)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise LandmarksError("the landmark tool ended by itself") from error
        return None if answer == _NO_FACE else MotionPacket.unpack(answer)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(1.0):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def send(source: str, avatar: str, url: str, api_key: str | None, loop: bool, say: Callable[[str], None]) -> None:
    """Send a clip, a .motion track, or the `camera`; returns when the source ends, a track and a camera never do."""
    if source.endswith(".motion"):
        track = MotionTrack.load(Path(source))
        async with (
            MienClient(url, api_key) as mien,
            speaking_session(mien, await avatar_of(mien, avatar)) as (session, uplink),
        ):
            say(f"Speaking at {_page(url, session, api_key)}; Ctrl-C ends it.")
            await play(track, uplink)
    async with (
        LandmarkTool() as tool,
        MienClient(url, api_key) as mien,
        speaking_session(mien, await avatar_of(mien, avatar)) as (session, uplink),
    ):
        say(f"Speaking at {_page(url, session, api_key)}; Ctrl-C ends it.")
        faces = await _send_pictures(pictures(source, loop), tool, uplink)
        say(f"Sent {uplink.sent} packets; a face was found in {faces[0]} of {faces[1]} pictures.")


def _page(url: str, session: Session, api_key: str | None) -> str:
    """Where the session is watched; with the token that watches it, where an API key was needed to make it."""
    token = f"&token={session.watch_token}" if api_key else ""
    return f"{url}/#session={session.session_id}{token}"


async def _send_pictures(source: AsyncIterator[RgbArray], tool: LandmarkTool, uplink: Uplink) -> tuple[int, int]:
    """Pictures to packets; (pictures with a face, pictures). Without a face nothing is sent, which is a stall."""
    found = asked = 0
    async for rgb in source:
        packet = await tool.find(rgb, capture_clock_ms())
        asked += 1
        if packet is not None:
            found += 1
            uplink.push(packet)
    return found, asked


async def pictures(source: str, loop: bool) -> AsyncIterator[RgbArray]:
    """RGB pictures of a clip at its own pace, over and over if asked, or of the first camera as they come."""
    live = source == "camera"
    while True:
        start_s = time.monotonic()
        with contextlib.closing(_decoded(source)) as decoded:
            while (entry := await asyncio.to_thread(next, decoded, None)) is not None:
                at_s, rgb = entry
                behind_s = time.monotonic() - start_s - at_s
                if not live and behind_s < 0:
                    await asyncio.sleep(-behind_s)
                yield rgb
        if live or not loop:
            return


def _decoded(source: str) -> Generator[tuple[float, RgbArray], None, None]:
    """(seconds from the start, picture) of everything in a source, scaled down to what landmarks want."""
    if source == "camera":
        opened = av.open("/dev/video0", format="v4l2", options={"framerate": "30", "video_size": "640x480"})
    else:
        opened = av.open(source)
    with opened as container:
        for frame in container.decode(video=0):
            scale = min(1.0, _LONGEST_SIDE / max(frame.width, frame.height))
            width, height = round(frame.width * scale), round(frame.height * scale)
            yield (
                frame.time or 0.0,
                frame.to_ndarray(format="rgb24", width=width, height=height).astype(np.uint8, copy=False),
            )
