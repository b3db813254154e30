"""Tasks in the background are kept, logged if they fail, and can be ended."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from mien_signaling.background import BackgroundTasks


async def test_a_task_is_kept_until_it_ends() -> None:
    tasks, may_end, ended = BackgroundTasks("failed"), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        ended.set()

    tasks.spawn(work())
    await asyncio.sleep(0)
    gc.collect()
    may_end.set()
    await tasks.finish()
    assert ended.is_set()


async def test_a_failure_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks("removing a viewer failed")

    async def fail() -> None:
        raise ValueError

    tasks.spawn(fail())
    with caplog.at_level(logging.ERROR):
        await tasks.finish()
        await asyncio.sleep(0)
    assert [record.message for record in caplog.records] == ["removing a viewer failed"]


async def test_cancelled_tasks_have_ended_and_are_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks("failed")
    task = tasks.spawn(asyncio.Event().wait())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await tasks.cancel()
    assert task.cancelled() and not caplog.records
