"""What several folders of tests need."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import pytest_asyncio
from e2e.browser import browser_page
from playwright.async_api import Page

from mien_shared.bus.embedded_redis import EmbeddedRedis

# By default an example that takes 200 ms fails: a time limit, which a loaded machine breaks.
hypothesis.settings.register_profile("mien", deadline=None)
hypothesis.settings.load_profile("mien")


@pytest.fixture
def redis_server() -> Iterator[EmbeddedRedis]:
    """A Redis of the test's own; stop() and start() keep its URL."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; its absence is a failure where MIEN_REQUIRE_CHROMIUM is set, and skips the test elsewhere."""
    path = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("MIEN_REQUIRE_CHROMIUM"):
            pytest.fail("MIEN_REQUIRE_CHROMIUM is set and no Chromium is installed")
        pytest.skip("no Chromium on this machine")
    return path


@pytest_asyncio.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    """A page of a browser of the test's own."""
    async with browser_page(chromium) as page:
        yield page
