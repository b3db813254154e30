"""Whole services in their own processes, on an embedded Redis that the tests may stop."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from e2e.browser import browser_page
from e2e.system import System
from playwright.async_api import Page

from mien_client.launcher import Stack, StackOptions
from mien_shared.embedded_redis import EmbeddedRedis


@pytest.fixture
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest_asyncio.fixture
async def system(redis_server: EmbeddedRedis) -> AsyncIterator[System]:
    async with Stack(StackOptions(gateway_port=0, signaling_port=0, redis_url=redis_server.url)) as stack:
        yield System(stack, redis_server)


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
