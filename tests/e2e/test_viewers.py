"""Operators and viewers through the whole system, in its own processes: the list, an end, and a signaling killed."""

from __future__ import annotations

import asyncio

import pytest
from e2e.browser import reach
from e2e.system import System, watch_for
from playwright.async_api import Page

from mien_client import tracing, watching
from mien_client.api import MienClient, MienError
from mien_client.viewer import Viewer

pytestmark = pytest.mark.e2e


async def listed(mien: MienClient, session_id: str, count: int) -> list[str]:
    """The viewers' ids once so many are connected."""
    async with asyncio.timeout(20):
        while True:
            viewers = await mien.viewers(session_id)
            if [viewer.state for viewer in viewers] == ["connected"] * count:
                return [viewer.viewer_id for viewer in viewers]
            await asyncio.sleep(0.05)


async def test_mien_watch_says_that_an_operator_ended_it(system: System) -> None:
    said: list[str] = []
    async with system.call() as call, MienClient(system.stack.url) as mien:
        session = call.session
        watch = asyncio.create_task(watching.watch(session.whep_url, session.watch_token, None, None, said.append))
        (viewer_id,) = await listed(mien, session.session_id, 1)
        async with Viewer(session.whep_url, session.watch_token) as other:
            await mien.end_viewer(session.session_id, viewer_id)
            async with asyncio.timeout(20):
                await watch
            assert said[-1] == "The service ended the connection: an operator has ended this viewer's connection."
            assert await watch_for(other, 1.0), "the other viewer watches on"
            assert viewer_id not in await listed(mien, session.session_id, 1)
        with pytest.raises(MienError, match="viewer-not-found"):
            await mien.end_viewer(session.session_id, viewer_id)


async def test_mien_watch_and_mien_trace_read_what_the_pictures_carry(system: System) -> None:
    said: list[str] = []
    async with system.call() as call, MienClient(system.stack.url) as mien:
        session = call.session
        report = await watching.watch(session.whep_url, session.watch_token, None, 0.5, said.append)
        lives = await tracing.trace(session.whep_url, session.watch_token, 5)
        assert (await mien.session(session.session_id)).synthetic
    assert said == ["Connected, for 0.5 s."]
    assert report["synthetic"] is True
    assert len(lives) == 5
    assert (lives[0].key_frame, lives[0].synthetic) == (True, True)
    assert [life.synthetic for life in lives] == [life.key_frame for life in lives]
    assert all(life.face_ms > 0 and life.encode_ms > 0 for life in lives)


@pytest.mark.long
async def test_the_viewers_of_a_signaling_that_was_killed_vanish(system: System) -> None:
    async with system.call() as call, MienClient(system.stack.url) as mien:
        session = call.session
        async with Viewer(session.whep_url, session.watch_token):
            await listed(mien, session.session_id, 1)
            await system.stack.kill("signaling")
            assert await listed(mien, session.session_id, 0) == []
            assert (await mien.session(session.session_id)).state == "live"


@pytest.mark.chromium
async def test_the_page_says_that_an_operator_ended_it_and_does_not_come_back_by_itself(
    system: System, page: Page
) -> None:
    async with system.call() as call, MienClient(system.stack.url) as mien:
        session_id = call.session.session_id
        await page.goto(f"{system.stack.url}/#session={session_id}&play=1")
        await reach(page, "playing")
        (viewer_id,) = await listed(mien, session_id, 1)
        await mien.end_viewer(session_id, viewer_id)
        await reach(page, "removed")
        assert await page.inner_text("#message-title") == "You were removed from this session"
        assert await page.inner_text("#message-text") == "An operator ended your connection."
        await asyncio.sleep(3)  # longer than the page's poll and its first retries
        assert await listed(mien, session_id, 0) == []
        assert await page.evaluate("window.mien.state") == "removed"
        await page.click("#action")
        await reach(page, "ready")
        await page.click("#play")
        await reach(page, "playing")
        assert len(await listed(mien, session_id, 1)) == 1, "its token is still valid"


@pytest.mark.chromium
async def test_the_page_that_plays_counts_itself(system: System, page: Page) -> None:
    async with system.call() as call:
        await page.goto(f"{system.stack.url}/#session={call.session.session_id}&play=1")
        await reach(page, "playing")
        async with asyncio.timeout(20):
            while await page.inner_text("#stat-viewers") != "1":
                await asyncio.sleep(0.05)
