"""The pictures of a clip at its own pace, or those of a camera as they arrive."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from mien_client.sources import SourceError, read_camera, read_clip
from mien_shared.media.pace import DEFAULT_RATE
from mien_shared.media.upright import Orientation

#: A clip's picture that is later than this is skipped: newest wins.
_TOO_LATE_S = 0.1
#: How long to wait for a camera that has no picture yet.
_CAMERA_POLL_S = 0.005

RgbArray = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to send now. time_s: the monotonic time at which it was due."""

    time_s: float
    frame: av.VideoFrame

    def rgb(self, longest_side: int) -> RgbArray:
        """(H, W, 3), upright, scaled down so that no side exceeds `longest_side`."""
        frame = self.frame
        scale = min(1.0, longest_side / max(frame.width, frame.height))
        width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height).astype(np.uint8, copy=False)
        return Orientation.of(frame).upright(rgb)


class _ThreadReader(Generic[T]):
    """Runs a blocking generator in one thread. A read that is cancelled ends before the generator is closed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "pictures")
        self._generator: Generator[T, None, None] | None = None

    async def open(self, generator: Generator[T, None, None]) -> T | None:
        """Read from this generator from now on. Returns its first item, None if it has none."""
        await self._close_generator()
        self._generator = generator
        return await self.next()

    async def next(self) -> T | None:
        """The next item; None at the end."""
        assert self._generator is not None, "next() needs an open reader"
        read: Callable[[], T | None] = partial(next, self._generator, None)
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    async def aclose(self) -> None:
        await self._close_generator()
        self._thread.shutdown(wait=False)

    async def _close_generator(self) -> None:
        if self._generator is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._generator.close)


class ClipPictures:
    """A clip's pictures, each when it is due. An async context manager: iterate over it inside.

    loop: repeat the clip without end. tell: called once with each sentence about a flaw that does not stop the clip.
    `late` counts the pictures that were skipped because the consumer was too slow. Entering and iterating raise
    SourceError.
    """

    def __init__(
        self,
        source: str,
        loop: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._source = source
        self._loop = loop
        self._clock_s = clock_s
        self._sleep = sleep
        self._tell = tell
        self._told: set[str] = set()
        self._reader: _ThreadReader[tuple[float, av.VideoFrame]] = _ThreadReader()
        self._next: tuple[float, av.VideoFrame] | None = None
        self.late = 0

    async def __aenter__(self) -> Self:
        """Open the clip and decode its first picture: a clip without any fails here."""
        try:
            await self._open()
        except BaseException:
            await self._reader.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reader.aclose()

    async def __aiter__(self) -> AsyncIterator[Picture]:
        start_s = self._clock_s()
        while True:
            at_s, count = 0.0, 0
            while self._next is not None:
                at_s, frame = self._next
                count += 1
                now_s = self._clock_s()
                due_s = start_s + at_s
                if now_s - due_s > _TOO_LATE_S:
                    self.late += 1
                else:
                    await self._sleep(max(0.0, due_s - now_s))
                    yield Picture(due_s, frame)
                await self._advance()
            if not self._loop:
                return
            # The first picture follows the last one at the clip's pace; a single picture comes at the usual rate.
            interval_s = at_s / (count - 1) if count > 1 else float(1 / DEFAULT_RATE)
            start_s = max(start_s + at_s + interval_s, self._clock_s())
            await self._open()

    async def _open(self) -> None:
        self._next = await self._reader.open(read_clip(self._source, self._tell_once))

    async def _advance(self) -> None:
        try:
            self._next = await self._reader.next()
        except SourceError as error:  # the clip is damaged or cut off
            if not self._loop:
                raise
            self._tell_once(str(error))
            self._next = None

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


class CameraPictures:
    """A camera's pictures as they arrive. An async context manager: iterate over it inside.

    device: None means the system's default camera. Entering and iterating raise SourceError.
    """

    late = 0  # its pictures are due when they arrive

    def __init__(self, device: str | None = None, system: str = sys.platform) -> None:
        self._device = device
        self._system = system
        self._reader: _ThreadReader[av.VideoFrame | None] = _ThreadReader()

    async def __aenter__(self) -> Self:
        """Open the camera."""
        try:
            await self._reader.open(read_camera(self._device, self._system))
        except BaseException:
            await self._reader.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reader.aclose()

    async def __aiter__(self) -> AsyncIterator[Picture]:
        while True:  # a camera that ends raises SourceError
            frame = await self._reader.next()
            if frame is None:
                await asyncio.sleep(_CAMERA_POLL_S)
            else:
                yield Picture(time.monotonic(), frame)
