"""An injected clock. The services take the times of loops, pacing and media from a Clock, so that tests need no sleep.

Some modules read the machine's clock directly: the start of the embedded Redis, the issuing of tokens, the round trip
of RTCP, the measurement of a device's speed, and the Python client.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time for intervals, Unix time for values that other machines read, and a sleep on the same clock."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def unix_s(self) -> float:
        """Seconds since 1970 by this machine's clock."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed on this clock."""


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that stands still until `advance` moves it. A sleeper wakes exactly at its due time."""

    def __init__(self, unix_s: float = 1_700_000_000.0) -> None:
        self._now_s = 0.0
        self._unix_origin_s = unix_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic_s(self) -> float:
        return self._now_s

    def unix_s(self) -> float:
        return self._unix_origin_s + self._now_s

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on. Each sleeper wakes at its due time and runs before the next one wakes."""
        end_s = self._now_s + seconds
        await _run_other_tasks()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await _run_other_tasks()
        self._now_s = end_s


async def _run_other_tasks() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
