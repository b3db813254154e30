"""The gateway's end of the process that decodes uploads: started on first use, killed on timeout or shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

from mien_gateway.portrait_contract import LENGTH, Answer, PictureRefused, Portrait
from mien_shared.keypoints import Keypoints

logger = logging.getLogger(__name__)

#: Added to the worker's own alarm, for a process that must start first or does not answer at all.
_MARGIN_S = 5.0
#: How long an upload waits for the uploads before it.
_TURN_TIMEOUT_S = 20.0


class PortraitFailed(RuntimeError):
    """The worker ran out of time or ended. The cause may be the picture or the machine."""


class PortraitProcess:
    """Makes portraits in one separate process, one after the other. Further uploads wait for their turn."""

    def __init__(self, deadline_s: float, memory_bytes: int, max_pixels: int) -> None:
        self._deadline_s = deadline_s
        self._arguments = [str(deadline_s), str(memory_bytes), str(max_pixels)]
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is no worker."""
        return self._process.pid if self._process else None

    async def make(self, data: bytes) -> Portrait:
        """Make a portrait from an uploaded file; raises PictureRefused or PortraitFailed."""
        try:
            async with asyncio.timeout(_TURN_TIMEOUT_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise PortraitFailed("the pictures before this one take too long; try again later") from error
        try:
            answer, png = await self._ask(data)
        finally:
            self._turn.release()
        if answer.refusal is not None:
            raise PictureRefused(answer.refusal, answer.detail)
        assert answer.face_box is not None
        return Portrait(png, answer.face_box, Keypoints.from_rows(answer.keypoints))

    async def _ask(self, data: bytes) -> tuple[Answer, bytes]:
        process = await self._started()
        try:
            async with asyncio.timeout(self._deadline_s + _MARGIN_S):
                return await _exchange(process, data)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            await self._end()
            logger.warning("the portrait worker failed", extra={"status": process.returncode})
            raise PortraitFailed("the picture took too much time or memory") from error
        except BaseException:
            await self._end()  # part of an answer may be in the pipe: the next upload must not read it
            raise

    async def aclose(self) -> None:
        """Kill the worker."""
        await self._end()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mien_gateway.portrait_worker",
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the gateway only
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, data: bytes) -> tuple[Answer, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTH.pack(len(data)))
    process.stdin.write(data)
    await process.stdin.drain()
    answer = Answer.model_validate_json(await _part(process.stdout))
    return answer, await _part(process.stdout)


async def _part(source: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await source.readexactly(LENGTH.size))
    return await source.readexactly(length)


def _environment() -> dict[str, str]:
    """The environment without secrets, and with single-threaded libraries: each thread would reserve address space."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MIEN_", "REDIS_", "AWS_"))}
    return ours | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
