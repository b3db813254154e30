"""Time, injected. Nothing in Mien reads the machine's clock but through a Clock, so that no test sleeps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time for intervals, Unix time for what other machines compare, and a sleep that follows both."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def unix_s(self) -> float:
        """Seconds since 1970, as this machine believes."""

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed on this clock."""


class SystemClock:
    """The machine's own time."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """Time that stands still until `advance` moves it: a sleeper wakes when the clock passes its hour, never later."""

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
        """Move time on, waking each sleeper at its own hour and letting it run before the next."""
        end_s = self._now_s + seconds
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await _let_others_run()
        self._now_s = end_s


async def _let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
