"""Runs the landmark tool as a child process: `mien send --tracker landmarks`, to compare it with the keypoint encoder.

The tool (tools/landmarks) has its own Python environment. Its serve.py describes the protocol: a picture in, a motion
packet or "no face" out.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.motion_v1 import PACKET_BYTES

#: The tool's environment in a checkout; `make landmarks` creates it.
_ENVIRONMENT = Path(__file__).parents[3] / ".venv-landmarks"
_QUESTION = struct.Struct("<HHI")
_NO_FACE = bytes(PACKET_BYTES)


class LandmarksError(RuntimeError):
    """The landmark tool is not installed, or it ended unexpectedly."""


class LandmarkTool:
    """The landmark tool as a child process; an async context manager."""

    def __init__(self) -> None:
        self._python = Path(os.environ.get("MIEN_LANDMARKS_PYTHON", _ENVIRONMENT / "bin" / "python"))
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        if not self._python.exists():
            raise LandmarksError(
                "the landmark tool is not installed: run `make landmarks`, or set MIEN_LANDMARKS_PYTHON to its Python"
            )
        self._process = await asyncio.create_subprocess_exec(
            str(self._python),
            *("-m", "mien_landmarks", "serve", "--absolute", "--unsmoothed"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def find(self, rgb: NDArray[np.uint8], time_s: float) -> Keypoints | None:
        """The keypoints of the face in a picture, (H, W, 3), in crop coordinates. None if there is no face."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        height, width = rgb.shape[:2]
        try:
            question = _QUESTION.pack(width, height, round(time_s * 1000) & 0xFFFF_FFFF)
            self._process.stdin.write(question + rgb.tobytes())
            await self._process.stdin.drain()
            answer = await self._process.stdout.readexactly(PACKET_BYTES)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise LandmarksError("the landmark tool ended unexpectedly") from error
        return None if answer == _NO_FACE else MotionPacket.unpack(answer).keypoints

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
