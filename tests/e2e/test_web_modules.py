"""The watch page's pure functions, run in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

import mien_web

pytestmark = [pytest.mark.e2e, pytest.mark.chromium]

Call = Callable[..., Awaitable[Any]]


class _Files(SimpleHTTPRequestHandler):
    """The page's folder under /static, as the gateway serves it."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/static"))

    def log_message(self, format: str, *args: object) -> None: ...


@pytest_asyncio.fixture
async def whep(page: Page) -> AsyncIterator[Call]:
    """Calls a function of whep.js with JSON arguments. {"random": x} stands for a function that always returns x."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(mien_web.ROOT)))
    Thread(target=server.serve_forever, daemon=True).start()
    await page.goto(f"http://127.0.0.1:{server.server_port}/static/favicon.svg")

    async def call(name: str, *arguments: Any) -> Any:
        script = """
        async ([name, given]) => {
          const module = await import("/static/whep.js");
          const real = (value) => {
            if (value?.random !== undefined) return () => value.random;
            if (value?.status !== undefined) return new module.WhepError(value.status, "", value.retryAfterMs ?? null);
            return value;
          };
          return module[name](...given.map(real));
        }
        """
        return await page.evaluate(script, [name, list(arguments)])

    yield call
    server.shutdown()


async def test_what_a_refusal_leads_to(whep: Call) -> None:
    for status, retry_after_ms, state, delay_ms in (
        (401, None, "denied", None),
        (403, None, "denied", None),
        (404, None, "ended", None),
        (409, None, "waiting", 2000),
        (409, 1000, "waiting", 1100),
        (422, None, "failed", None),
        (429, 5000, "busy", 5500),
        (503, None, "busy", 750),
        (503, 3_600_000, "busy", 66_000),
        (500, None, "reconnecting", 375),
    ):
        plan = await whep("planRetry", {"status": status, "retryAfterMs": retry_after_ms}, 0, {"random": 0.5})
        assert plan == {"state": state, "delayMs": delay_ms}, status


async def test_backoff_doubles_up_to_a_limit_and_never_comes_at_once(whep: Call) -> None:
    assert [await whep("backoffMs", failures, {"random": 0}) for failures in range(7)] == [
        250, 500, 1000, 2000, 4000, 7500, 7500,
    ]  # fmt: skip
    assert await whep("backoffMs", 30, {"random": 0.999}) <= 15_000


async def test_retry_after_in_seconds_or_as_a_date(whep: Call) -> None:
    for value, milliseconds in (
        ("7", 7000),
        (None, None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 9000),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ):
        assert await whep("parseRetryAfterMs", value, 1000) == milliseconds, value


async def test_ice_servers_of_link_headers(whep: Call) -> None:
    header = (
        '<stun:s.example>; rel="ice-server", <https://other.example>; rel="next", '
        '<turn:t.example?transport=udp>; rel="ice-server"; username="u,1"; credential="c\\"2"'
    )
    assert await whep("parseIceServerLinks", header) == [
        {"urls": "stun:s.example"},
        {"urls": "turn:t.example?transport=udp", "username": "u,1", "credential": 'c"2'},
    ]
    assert await whep("parseIceServerLinks", None) == []


async def test_candidates_under_mdns_names_are_not_addresses(whep: Call) -> None:
    for candidates, complete in (
        ([], False),
        (["candidate:1 1 udp 1 192.0.2.1 5000 typ host"], True),
        (["candidate:1 1 udp 1 0f2e.local 5000 typ host"], False),
        (["candidate:1 1 udp 1 192.0.2.1 5000 typ host", "candidate:2 1 udp 1 0f2e.local 5000 typ host"], False),
    ):
        assert await whep("areAllAddresses", candidates) is complete, candidates
