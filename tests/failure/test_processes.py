"""Signaling and the gateway killed and started again."""

from __future__ import annotations

import asyncio
import time

import pytest
from e2e.browser import reach, state_of
from failure.eye import LEAST_FPS, fps, longest_freeze_s, longest_gap_s, watching
from failure.stacks import Note, Run, bundled_face
from playwright.async_api import Page

pytestmark = pytest.mark.failure


@pytest.mark.chromium
async def test_signaling_killed_under_a_watch_page(run_system: Run, note: Note, page: Page) -> None:
    async with run_system() as system, system.call() as call:
        await page.goto(f"{system.stack.url}/#session={call.session.session_id}&play=1")
        await reach(page, "playing")
        await system.stack.kill("signaling")
        killed_s = time.monotonic()
        await system.stack.start("signaling")
        started_s = time.monotonic()
        async with asyncio.timeout(30):
            while await state_of(page) == "playing":
                await asyncio.sleep(0.05)
        noticed_s = time.monotonic()
        await reach(page, "playing", within_s=30)
        before_s = float(await page.evaluate("document.getElementById('stage-video').currentTime"))
        played_s = time.monotonic()
        await asyncio.sleep(2)
        assert float(await page.evaluate("document.getElementById('stage-video').currentTime")) - before_s > 1.0
        # A viewer of the SDK can join the new process.
        async with watching(call.session, await bundled_face(system)):
            pass
    note(
        "signaling killed (`-9`) and started again",
        "a page in Chromium: a frozen picture until the page notices; it reconnects by itself and plays",
        f"noticed after {noticed_s - killed_s:.1f} s, playing after {played_s - killed_s:.1f} s; "
        f"the process was away for {started_s - killed_s:.1f} s",
    )


async def test_gateway_killed(run_system: Run, note: Note) -> None:
    async with run_system() as system, system.call() as call:
        async with watching(call.session, await bundled_face(system)) as eye:
            before = call.uplink.reconnects
            await system.stack.kill("gateway")
            killed_s = time.monotonic()
            await asyncio.sleep(3)
            meanwhile = eye.since(killed_s, killed_s + 3)
            await system.stack.start("gateway")
            started_s = time.monotonic()
            moves_s = await eye.wait_for_speaker(started_s - 1.0, within_s=20)
            await asyncio.sleep(2)
            assert eye.is_connected
            assert call.uplink.reconnects > before
            assert not call.speaker.done()
            assert all(sight.is_speaker for sight in eye.since(time.monotonic() - 1.0))
            whole = eye.since(killed_s - 1.0)
            freeze_s, gap_s = longest_freeze_s(whole, time.monotonic()), longest_gap_s(whole)
        assert any(not sight.is_speaker for sight in meanwhile), "default motion while no packets arrive"
        assert not any(sight.is_speaker for sight in meanwhile if sight.at_s > killed_s + 1.0)
        assert fps(meanwhile) > LEAST_FPS
        assert gap_s < 0.5
        assert freeze_s < 1.0, "never a frozen picture"
    note(
        "the gateway killed (`-9`) and started again after 3 s",
        "the avatar breathes and blinks (default motion); the sender reconnects by itself and the speaker moves again",
        f"longest freeze {freeze_s:.2f} s (limit 1 s); the speaker moves {moves_s - started_s:.2f} s "
        "after the gateway is ready",
    )
