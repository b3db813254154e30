"""What several folders of tests need."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
from e2e.browser import browser_page
from playwright.async_api import Page

from mien_shared.bus.embedded_redis import EmbeddedRedis

# By default an example that takes 200 ms fails: a time limit, which a loaded machine breaks.
hypothesis.settings.register_profile("mien", deadline=None)
hypothesis.settings.load_profile("mien")

_TESTS = Path(__file__).parent
_FE_DFL_ENV = ctypes.c_void_p(-1)


#: Tests that measure a rate or run whole services: another test beside them would disturb them.
_ALONE_FOLDERS = ("e2e", "failure", "packaging")
_ALONE_MARKERS = ("e2e",)
#: Tests whose subject takes time: `make test-long` and CI run them.
_LONG_FOLDERS = ("benchmarks", "failure", "packaging")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--after-check", action="store_true", help="leave out what `make check` runs; needs its paths in MIEN_CHECKED"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark whole folders, and what uses a browser, so that no test can be forgotten."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder in _ALONE_FOLDERS or any(item.get_closest_marker(name) for name in _ALONE_MARKERS):
            item.add_marker(pytest.mark.alone)
        if folder in _LONG_FOLDERS:
            item.add_marker(pytest.mark.long)
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.chromium)
            item.add_marker(pytest.mark.alone)
    if config.getoption("--after-check"):
        checked = [_TESTS.parent / path for path in os.environ["MIEN_CHECKED"].split()]
        config.hook.pytest_deselected(items=[item for item in items if _is_checked(item, checked)])
        items[:] = [item for item in items if not _is_checked(item, checked)]


def _is_checked(item: pytest.Item, checked: list[Path]) -> bool:
    is_quick = not any(item.get_closest_marker(name) for name in ("slow", "long"))
    return is_quick and any(item.path.is_relative_to(path) for path in checked)


@pytest.fixture(autouse=True)
def usual_floats() -> None:
    """Denormal numbers are numbers in every test.

    ONNX Runtime switches them off for the thread that opens its first session, which is the tests' own here, and
    hypothesis refuses to draw floats then. glibc's default environment switches them on again.
    """
    if sys.platform == "linux":
        _libm().fesetenv(_FE_DFL_ENV)


@cache
def _libm() -> ctypes.CDLL:
    return ctypes.CDLL("libm.so.6")


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
