"""Loops are started, watched and ended in one place, which says whether a service is ready and whether it is alive."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from mien_shared.bus.rights import GATEWAY
from mien_shared.clock import VirtualClock
from mien_shared.metrics import ServiceMetrics
from mien_shared.supervisor import Supervisor


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def supervisor(clock: VirtualClock) -> Supervisor:
    return Supervisor(clock, ServiceMetrics("trial"))


async def fails() -> None:
    raise KeyError("a bug")


async def returns() -> None:
    return None


async def waits() -> None:
    await asyncio.Event().wait()


async def test_a_service_is_unready_until_it_has_started_and_again_once_it_stops(supervisor: Supervisor) -> None:
    assert supervisor.unready() == {"start": "the service is still starting"}
    assert supervisor.fatal() == {}
    supervisor.started()
    assert supervisor.unready() == {}
    await supervisor.aclose()
    assert supervisor.unready() == {"stop": "the service is stopping"}
    assert supervisor.fatal() == {}


@pytest.mark.parametrize("ends", [fails, returns])
async def test_a_loop_that_ends_is_logged_and_the_service_neither_ready_nor_alive(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, ends: object
) -> None:
    supervisor.started()
    supervisor.run("sound", waits())
    supervisor.run("broken", fails() if ends is fails else returns())
    assert supervisor.fatal() == {}
    with caplog.at_level(logging.CRITICAL):
        for _ in range(5):
            await asyncio.sleep(0)
    crashed = {"broken": "the loop has crashed; the log says why"}
    assert supervisor.fatal() == supervisor.unready() == crashed
    assert [record.getMessage() for record in caplog.records] == ["a loop has crashed"]
    await supervisor.aclose()


async def test_redis_away_is_unready_and_alive_and_a_bug_in_a_step_is_neither(
    supervisor: Supervisor, clock: VirtualClock
) -> None:
    answers: list[Exception | None] = [RedisConnectionError("gone"), None, ValueError("a bug")]

    async def step() -> None:
        if error := answers.pop(0):
            raise error

    supervisor.started()
    supervisor.keep("step", step, pause_s=1.0)
    await clock.advance(0.01)
    assert supervisor.fatal() == {}
    assert len(answers) == 2, "it waits before it tries again"
    await clock.advance(0.1)
    assert supervisor.fatal() == {}
    await clock.advance(1.0)
    assert list(supervisor.fatal()) == ["step"]
    await supervisor.aclose()


async def test_a_redis_that_does_not_answer_is_a_reason(supervisor: Supervisor, clock: VirtualClock) -> None:
    supervisor.started()
    async with Redis(host="127.0.0.1", port=1) as redis:
        supervisor.watch_redis(redis, GATEWAY)
        supervisor.keep("has nothing to ask Redis", returns, pause_s=0.1)
        await clock.advance(0.35)
        assert supervisor.unready() == {"redis": "Redis does not answer"}
        assert supervisor.fatal() == {}
        await supervisor.aclose()


async def test_vital_checks_count_as_both(supervisor: Supervisor) -> None:
    supervisor.started()
    flaw: list[str | None] = [None]
    supervisor.check("device", lambda: flaw[0], vital=True)
    assert supervisor.unready() == {}
    flaw[0] = "the device thread has failed"
    assert supervisor.fatal() == supervisor.unready() == {"device": "the device thread has failed"}


async def test_closing_ends_every_loop(supervisor: Supervisor) -> None:
    ended = asyncio.Event()

    async def loop() -> None:
        try:
            await waits()
        finally:
            ended.set()

    supervisor.run("loop", loop())
    await asyncio.sleep(0)
    await supervisor.aclose()
    await supervisor.aclose()
    assert ended.is_set()
