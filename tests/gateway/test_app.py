"""What readiness is made of."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mien_gateway.app import Loops


async def fails() -> None:
    raise KeyError("a bug")


async def waits() -> None:
    await asyncio.Event().wait()


async def test_a_loop_that_crashes_is_seen_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    sound = asyncio.create_task(waits(), name="sound")
    broken = asyncio.create_task(fails(), name="broken")
    loops = Loops([sound, broken])
    assert loops.reasons() == {}
    with caplog.at_level(logging.CRITICAL):
        await asyncio.wait([broken])
        await asyncio.sleep(0)
    assert loops.reasons() == {"broken": "the loop has crashed; the log says why"}
    assert [record.getMessage() for record in caplog.records] == ["a loop has crashed"]
    await loops.aclose()
    assert sound.cancelled()
