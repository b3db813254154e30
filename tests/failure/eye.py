"""Records what a viewer sees, picture by picture, while services fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mien_client.api import Session
from mien_client.recording import trace_of
from mien_client.viewer import Viewer
from mien_client.whep import ReceivedFrame
from mien_shared.avatars import FaceBox

#: A picture is distinct if a pixel of its face has changed by this many of 256 levels. Coding noise changes less.
_DISTINCT_LEVELS = 6
#: Lowest frame rate of a call that continues, also on a busy machine.
LEAST_FPS = 5
_STEP = 3  # only every third pixel is compared, in both directions


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture.

    at_s: arrival, monotonic. is_speaker: shows the speaker's motion. is_distinct: differs from the previous picture.
    is_key: decoded from an IDR.
    """

    at_s: float
    is_speaker: bool
    is_distinct: bool
    is_key: bool


class Eye:
    """Records one viewer's pictures in the background."""

    def __init__(self, viewer: Viewer, box: FaceBox) -> None:
        self.viewer = viewer
        self.sights: list[Sight] = []
        self._box = box
        self._last: NDArray[np.int16] | None = None
        self._task = asyncio.create_task(self._watch(), name="eye")

    @property
    def is_connected(self) -> bool:
        """False once the peer connection has ended."""
        return not self._task.done()

    async def _watch(self) -> None:
        async for frame in self.viewer.frames():
            self.sights.append(self._look(frame))

    def _look(self, frame: ReceivedFrame) -> Sight:
        plane = frame.picture.planes[0]
        luma = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        box = self._box
        face = luma[box.y : box.y + box.size : _STEP, box.x : box.x + box.size : _STEP].astype(np.int16)
        is_distinct = self._last is None or int(np.abs(face - self._last).max()) >= _DISTINCT_LEVELS
        if is_distinct:
            self._last = face
        trace = trace_of(frame.picture)
        is_speaker = trace is not None and not trace.is_stalled
        return Sight(time.monotonic(), is_speaker, is_distinct, bool(frame.picture.key_frame))

    async def wait_for_speaker(self, since_s: float, within_s: float) -> float:
        """The time of the first picture after `since_s` in which the speaker moves. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                moving = [sight.at_s for sight in self.sights if sight.at_s > since_s and shows_motion(sight)]
                if moving:
                    return moving[0]
                assert self.is_connected, "the viewer's connection has ended"
                await asyncio.sleep(0.02)

    def since(self, start_s: float, end_s: float = float("inf")) -> list[Sight]:
        """The pictures of a span of time."""
        return [sight for sight in self.sights if start_s <= sight.at_s <= end_s]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def shows_motion(sight: Sight) -> bool:
    """Whether the picture shows the speaker in another pose than the previous picture."""
    return sight.is_speaker and sight.is_distinct


def longest_gap_s(sights: Sequence[Sight]) -> float:
    """The longest time between two received pictures."""
    return max((later.at_s - earlier.at_s for earlier, later in pairwise(sights)), default=float("inf"))


def longest_freeze_s(sights: Iterable[Sight], end_s: float) -> float:
    """The longest time up to `end_s` in which the face did not change, with or without new pictures."""
    times = [sight.at_s for sight in sights if sight.is_distinct]
    return max((later - earlier for earlier, later in pairwise([*times, end_s])), default=float("inf"))


def fps(sights: Sequence[Sight]) -> float:
    """The frame rate."""
    return (len(sights) - 1) / (sights[-1].at_s - sights[0].at_s) if len(sights) > 1 else 0.0


@asynccontextmanager
async def watching(session: Session, box: FaceBox) -> AsyncIterator[Eye]:
    """A real WebRTC viewer of a session that has already seen the speaker move."""
    async with Viewer(session.whep_url, session.watch_token) as viewer:
        eye = Eye(viewer, box)
        try:
            await eye.wait_for_speaker(0.0, within_s=15.0)
            yield eye
        finally:
            await eye.close()
