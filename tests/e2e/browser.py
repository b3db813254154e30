"""A headless Chromium that shows the watch page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


@asynccontextmanager
async def browser_page(chromium: str) -> AsyncIterator[Page]:
    """A page in a new browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            yield await browser.new_page(viewport={"width": 1440, "height": 900})
        finally:
            await browser.close()


async def state_of(page: Page) -> str:
    return str(await page.evaluate("window.mien.state"))


async def picture_of(page: Page, selector: str, width: int, within_s: float = 20.0) -> None:
    """Wait until an image of the page is `width` pixels wide.

    This polls from outside: `wait_for_function` polls inside the page, and the page's Content-Security-Policy forbids
    that from the second time on.
    """
    natural = 0
    try:
        async with asyncio.timeout(within_s):
            while natural != width:
                natural = await page.evaluate("selector => document.querySelector(selector)?.naturalWidth", selector)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{selector} is {natural} pixels wide, not {width}, after {within_s:g} s")


async def reach(page: Page, state: str, within_s: float = 20.0) -> None:
    """Wait until the page is in the given state."""
    try:
        async with asyncio.timeout(within_s):
            while await state_of(page) != state:
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"the page is {await state_of(page)}, not {state}, after {within_s:g} s")
