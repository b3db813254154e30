"""The injected clock and its conversions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.clock import SystemClock, VirtualClock
from mien_shared.media.clock import elapsed_ms_u32, from_90k, to_90k


async def test_sleepers_wake_each_at_its_own_hour() -> None:
    clock = VirtualClock(unix_s=1000.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic_s()))

    tasks = [asyncio.create_task(sleeper("late", 2.0)), asyncio.create_task(sleeper("early", 0.5))]
    await clock.advance(1.0)
    assert woken == [("early", 0.5)]
    await clock.advance(1.0)
    assert woken == [("early", 0.5), ("late", 2.0)]
    assert clock.unix_s() == 1002.0
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_sleeps_again_wakes_again_within_one_advance() -> None:
    clock = VirtualClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(0.25)
            ticks.append(clock.monotonic_s())

    task = asyncio.create_task(tick())
    await clock.advance(1.0)
    task.cancel()
    assert ticks == [0.25, 0.5, 0.75, 1.0]


async def test_a_cancelled_sleeper_harms_nobody() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()
    await clock.advance(2.0)
    assert task.cancelled()


@given(st.integers(0, 2**40))
def test_ticks_of_90_khz_survive_the_way_to_seconds_and_back(ticks: int) -> None:
    assert to_90k(from_90k(ticks)) == ticks


@pytest.mark.parametrize(("seconds", "ticks"), [(0.0, 0), (1 / 30, 3000), (1.0, 90_000), (0.1, 9000)])
def test_seconds_as_ticks(seconds: float, ticks: int) -> None:
    assert to_90k(seconds) == ticks


@given(st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1))
def test_elapsed_time_on_a_clock_that_wraps(then_ms: int, elapsed_ms: int) -> None:
    assert elapsed_ms_u32((then_ms + elapsed_ms) & 0xFFFF_FFFF, then_ms) == elapsed_ms


def test_the_system_clock_never_goes_back() -> None:
    clock = SystemClock()
    before_s = clock.monotonic_s()
    assert clock.monotonic_s() >= before_s
    assert clock.unix_s() > 1.7e9
