"""The page of a room in real browsers: people meet by a name alone, and every failure has words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.browser import ARGUMENTS
from e2e.room_pages import room_browser
from e2e.system import System
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

pytestmark = [pytest.mark.e2e, pytest.mark.chromium]

PATIENCE_S = 90.0
#: Visible controls that a screen reader could not name.
NAMELESS = """() => {
  const kinds = "button, input, select, textarea, summary, a, [role=radio], [tabindex='0']";
  const controls = document.querySelectorAll(kinds);
  const nameOf = (one) => one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent;
  return [...controls]
    .filter((one) => one.checkVisibility() && !nameOf(one)?.trim())
    .map((one) => one.outerHTML.slice(0, 120));
}"""


class Person:
    """One person's page, in a browser profile of its own."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def until(self, condition: str) -> None:
        """Wait until an expression is true. Polls from outside: the page's policy forbids it inside."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self.page.evaluate(condition):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            text = await self.page.evaluate("document.body.innerText.slice(0, 600)")
            pytest.fail(f"{condition} is not true; the page shows {text!r}; errors {self.errors}")

    async def sees(self, text: str) -> None:
        await self.until(f"document.body.innerText.includes({text!r})")

    async def opens(self, system: System, room: str) -> None:
        await self.page.goto(f"{system.stack.url}/room/{room}")

    async def joins(self, system: System, room: str, name: str) -> None:
        """As a person does it: open the address, write the name, press the button."""
        await self.opens(system, room)
        await self.page.get_by_role("textbox", name="Your name").fill(name)
        await self.page.get_by_role("button", name="Join", exact=True).click()
        await self.until("window.mien.state === 'connected'")

    async def tile_is(self, name: str, condition: str) -> None:
        """Wait until something is true of the tile whose label begins with this name."""
        await self.until(
            f"(() => {{ const tile = [...document.querySelectorAll('.tile')]"
            f".find((one) => one.ariaLabel?.startsWith({name!r})); return {condition}; }})()"
        )

    async def has_named_controls(self) -> None:
        assert await self.page.evaluate(NAMELESS) == []


@asynccontextmanager
async def person(browser: Browser, **options: Any) -> AsyncIterator[Person]:
    context = await browser.new_context(locale="en-US", **{"viewport": {"width": 900, "height": 640}} | options)
    context.set_default_timeout(2 * PATIENCE_S * 1000)
    yield Person(context, await context.new_page())
    await context.close()


async def test_people_meet_by_a_name_alone_and_a_moderator_keeps_order(
    system: System, chromium: str, tmp_path: Path
) -> None:
    async with (
        room_browser(chromium, tmp_path) as browser,
        person(browser) as ada,
        person(browser, viewport={"width": 390, "height": 844}) as bob,
        person(browser) as eve,
    ):
        await ada.opens(system, "standup")
        await ada.until("document.getElementById('mirror-video').classList.contains('live')")
        await ada.until("document.querySelectorAll('.gallery-pick img').length >= 4")
        await ada.has_named_controls()
        await ada.page.get_by_role("button", name="Join", exact=True).click()
        await ada.sees("Please enter the name that the others will see.")
        await ada.joins(system, "standup", "Ada")
        await bob.joins(system, "standup", "Bob")

        # They see each other move, and each one sees itself.
        for one, other in ((ada, "Bob"), (bob, "Ada")):
            await one.tile_is(other, "tile?.dataset.picture === 'live'")
            await one.tile_is(f"{'Ada' if one is ada else 'Bob'} (you)", "tile?.dataset.picture === 'live'")
            await one.until("window.mien.participants.length === 1 && window.mien.participants[0].fps > 1")
            await one.until("window.mien.localParticipant.fps > 1 && window.mien.localParticipant.uplinkKbitS > 1")
            await one.has_named_controls()

        # Chat is counted while it is closed. What somebody writes stays text.
        await bob.page.get_by_role("button", name="Chat", exact=True).click()
        await bob.page.get_by_role("textbox", name="Write a message").fill("hello <b>all</b>")
        await bob.page.keyboard.press("Enter")
        await ada.page.get_by_role("button", name="Chat, 1 unread message").click()
        await ada.until("document.querySelector('#chat-log p')?.textContent === 'hello <b>all</b>'")
        await ada.has_named_controls()
        await bob.page.keyboard.press("Escape")

        # A raised hand, a reaction, and who is muted are on the tiles.
        await bob.page.get_by_role("button", name="Raise your hand").click()
        await ada.tile_is("Bob", "tile.ariaLabel.includes('Hand raised')")
        await bob.page.get_by_role("button", name="Reactions").click()
        await bob.page.get_by_role("menuitem", name="Applause").click()
        await ada.tile_is("Bob", "tile.querySelector('.tile-reaction') !== null")
        await ada.page.get_by_role("button", name="People (2)").click()
        await ada.page.get_by_role("button", name="Lower the hand of Bob").click()
        await bob.sees("A moderator has lowered your hand")
        await ada.page.get_by_role("button", name="Mute Bob").click()
        await bob.until("document.getElementById('microphone').getAttribute('aria-pressed') === 'false'")
        await ada.tile_is("Bob", "tile.ariaLabel.includes('muted')")
        assert await bob.page.get_by_role("button", name="Mute Ada").count() == 0

        # Loaded again, the page comes back into the room as the same person, without the join screen.
        await bob.page.reload()
        await bob.until("window.mien.state === 'connected'")
        await bob.tile_is("Ada", "tile?.dataset.picture === 'live'")
        await ada.tile_is("Bob", "tile?.dataset.picture === 'live'")

        # A locked room and a removal have words.
        await ada.page.get_by_role("button", name="Lock the room").click()
        await bob.until("!document.getElementById('room-locked').hidden")
        await eve.opens(system, "standup")
        await eve.sees("The room is locked")
        await ada.page.get_by_role("button", name="Remove Bob from the room").click()
        await ada.page.get_by_role("button", name="Remove", exact=True).click()
        await bob.sees("You have been removed from the room")
        assert await bob.page.get_by_role("button").count() == 0, "nothing invites to try again"
        await ada.page.get_by_role("button", name="Unlock the room").click()
        await eve.page.get_by_role("button", name="Try again").click()
        await eve.until("window.mien.state === 'join'")
        await ada.page.get_by_role("button", name="End for all").click()
        await ada.page.get_by_role("button", name="End for all").last.click()
        await ada.sees("The meeting is over")
        assert [one.errors for one in (ada, bob)] == [[], []]


async def test_without_a_camera_by_keyboard_alone_in_chinese_and_when_the_room_is_full(
    system: System, chromium: str
) -> None:
    async with (
        async_playwright() as playwright,
        httpx.AsyncClient(base_url=system.stack.url, trust_env=False, timeout=30) as http,
    ):
        arguments = [*ARGUMENTS, "--use-fake-device-for-media-stream", "--deny-permission-prompts"]
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        async with person(browser) as ada, person(browser) as eve:
            # The browser refuses camera and microphone: the page says so, and what to do.
            await ada.opens(system, "quiet")
            await ada.sees("The browser may not use your")
            await ada.sees("beside the address")
            await ada.until("document.getElementById('gallery').querySelector('[role=radio]') !== null")

            # From here on only keys. The name is the first field, and Enter in it joins.
            await ada.page.evaluate("document.activeElement.blur()")
            for _ in range(20):
                await ada.page.keyboard.press("Tab")
                if await ada.page.evaluate("document.activeElement.id") == "join-name":
                    break
            await ada.page.keyboard.type("Ada")
            await ada.page.keyboard.press("Enter")
            await ada.until("window.mien.state === 'connected'")
            await ada.page.keyboard.press("h")
            await ada.until("document.getElementById('hand').getAttribute('aria-pressed') === 'true'")
            await ada.page.keyboard.press("m")  # muted already; the browser refuses again, in words
            await ada.sees("The browser may not use your microphone")
            await ada.page.keyboard.press("c")
            await ada.until("document.activeElement.id === 'chat-text'")
            await ada.page.keyboard.type("hm, mmm")  # letters are letters here
            await ada.page.keyboard.press("Enter")
            await ada.until("document.querySelector('#chat-log p')?.textContent === 'hm, mmm'")
            await ada.page.keyboard.press("Escape")
            await ada.until("document.activeElement.id === 'chat-button'")

            # The room takes one person. The second one learns why, in its own language.
            await http.post("/v1/rooms", json={"name": "small", "max_participants": 1})
            await eve.opens(system, "small")
            await eve.until("window.mien.state === 'join'")
            await eve.page.get_by_role("button", name="Switch the language to Chinese").click()
            await eve.sees("你的名字")
            await eve.has_named_controls()
            await eve.page.locator("#join-name").fill("Eve")
            await eve.page.locator("#join-name").press("Enter")
            await eve.until("window.mien.state === 'connected'")
            async with person(browser) as late:
                await late.opens(system, "small")
                await late.sees("The room is full")
                await late.page.close()

            # Leaving by keys: Tab reaches the button, Enter presses it.
            for _ in range(20):
                await ada.page.keyboard.press("Tab")
                if await ada.page.evaluate("document.activeElement.id") == "leave":
                    break
            await ada.page.keyboard.press("Enter")
            await ada.sees("You have left the room")
            await eve.page.goto(f"{system.stack.url}/room/no%20room")
            await eve.sees("房间不能使用这个名字")
        await browser.close()
