"""The watch page in a real browser that decodes the real stream."""

from __future__ import annotations

import asyncio
import base64
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.browser import picture_of, reach
from e2e.system import System
from numpy.typing import NDArray
from playwright.async_api import Page

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR, speaking_session
from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK, play
from mien_shared.wire.track import MotionTrack

pytestmark = [pytest.mark.e2e, pytest.mark.chromium]

#: Returns the green channel of the current picture, a quarter as wide, as base64. The test compares face and rest.
GRAB = """
() => {
  const video = document.getElementById("stage-video");
  const canvas = document.createElement("canvas");
  canvas.width = 320; canvas.height = 180;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 320, 180);
  const rgba = context.getImageData(0, 0, 320, 180).data;
  return btoa(Array.from({length: 320 * 180}, (_, at) => String.fromCharCode(rgba[4 * at + 1])).join(""));
}
"""


async def stats_of(page: Page) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not (stats := await page.evaluate("window.mien.stats && {...window.mien.stats}")):
            await asyncio.sleep(0.1)
    return dict(stats)


async def test_one_press_of_play_shows_a_face_that_moves_in_a_picture_that_does_not(system: System, page: Page) -> None:
    async with system.call() as call, MienClient(system.stack.url) as mien:
        box = (await mien.avatar(BUNDLED_AVATAR)).face_box
        await page.goto(f"{system.stack.url}/#session={call.session.session_id}")
        await reach(page, "ready")
        await page.click("#play")
        await reach(page, "playing")
        before = (await stats_of(page))["framesDecoded"]
        grabbed: list[NDArray[np.int16]] = []
        for _ in range(8):
            green = np.frombuffer(base64.b64decode(await page.evaluate(GRAB)), np.uint8)
            grabbed.append(green.reshape(180, 320).astype(np.int16))
            await asyncio.sleep(0.4)
        stats = await stats_of(page)

    assert (stats["width"], stats["height"]) == (1280, 720)
    assert stats["framesDecoded"] - before > 30
    assert stats["codec"] == "H.264" or "264" in str(stats["codec"])
    assert stats["downlinkBps"] > 50_000
    assert stats["latencyMs"] > 0

    def change(left: int, top: int, right: int, bottom: int) -> float:
        """Largest mean change of a part of the picture between the first picture and a later one, in levels of 256."""
        part = np.s_[top:bottom, left:right]
        return max(float(np.abs(later[part] - grabbed[0][part]).mean()) for later in grabbed[1:])

    x, y, size = box.x // 4, box.y // 4, box.size // 4
    face = change(x + size // 4, y + size // 4, x + 3 * size // 4, y + 3 * size // 4)
    still = max(change(0, 0, max(1, x - 4), 180), change(x + size + 4, 0, 320, 180))
    assert face > 1.5, "the face moves"
    assert still < 1.0, "the rest does not move"
    assert face > 4 * still


async def test_the_page_waits_for_speakers_and_finds_the_first(system: System, page: Page) -> None:
    await page.goto(system.stack.url)
    await reach(page, "empty")
    async with system.call():
        await reach(page, "ready")
        await page.click("#play")
        await reach(page, "playing")
    await reach(page, "ended")


async def test_the_page_asks_for_nothing_its_policy_forbids(system: System, page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    async with system.call() as call:
        await page.goto(f"{system.stack.url}/#session={call.session.session_id}&play=1")
        await reach(page, "playing")
        await asyncio.sleep(1)
    assert complaints == []


async def test_a_closed_deployment_shows_a_session_and_its_picture_to_those_with_its_token(page: Page) -> None:
    api_key = secrets.token_urlsafe(32)
    options = StackOptions(
        gateway_port=0, signaling_port=0, generator_env={"MIEN_DEMO_OPEN": "false", "MIEN_API_KEYS": api_key}
    )
    async with (
        Stack(options) as stack,
        MienClient(stack.url, api_key) as mien,
        speaking_session(mien, BUNDLED_AVATAR) as (session, uplink),
    ):
        await page.goto(stack.url)
        await reach(page, "locked")
        speaker = asyncio.create_task(play(MotionTrack.load(DEMO_TRACK), uplink))
        await page.goto(f"{stack.url}/?again#session={session.session_id}&token={session.watch_token}")
        await reach(page, "ready")
        for picture in ("#stage-poster", "#sessions img"):
            await picture_of(page, picture, 1280)
            assert str(await page.get_attribute(picture, "src")).startswith("blob:")
        assert session.watch_token not in page.url, "the token does not stay in the address bar"
        await page.click("#play")
        await reach(page, "playing")
        speaker.cancel()
        await asyncio.gather(speaker, return_exceptions=True)


async def test_pictures_of_the_page(system: System, page: Page, tmp_path: Path) -> None:
    """Takes screenshots for people to look at. MIEN_SCREENSHOTS names their folder. The test judges only their size."""
    import os

    folder = Path(os.environ.get("MIEN_SCREENSHOTS", tmp_path))
    async with system.call() as call:
        await page.goto(f"{system.stack.url}/#session={call.session.session_id}")
        await reach(page, "ready")
        await page.screenshot(path=folder / "ready.png")
        await page.click("#play")
        await reach(page, "playing")
        await asyncio.sleep(3)
        await page.screenshot(path=folder / "playing.png")
    assert (folder / "playing.png").stat().st_size > 50_000
