"""A demo on loopback answers to loopback's names only, and pages of other sites change nothing in it."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mien_shared.http import hang_up
from mien_shared.http.loopback import LoopbackOnly, is_loopback

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
CHANGING = ["POST", "PUT", "PATCH", "DELETE"]
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_up, "_DISCARD_S", 0.01)


async def done(_: Request) -> Response:
    return PlainTextResponse("done")


def guarded() -> LoopbackOnly:
    app = Starlette(routes=[Route("/", done, methods=METHODS)])
    return LoopbackOnly(app, ["http://listed.example"])


async def ask(method: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(guarded())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as http:
        return await http.request(method, "/", headers=headers)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LocalHost", "[::1]", "[::1]:8080", "127.9.9.9"]
)
async def test_loopback_s_names_are_answered(host: str) -> None:
    assert (await ask("GET", Host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost:8080@evil.example",
        "evil.example:8080",
        "0.0.0.0",
        "192.168.0.1",
        "[::2]",
        "[::1",
        "127.0.0.1:8080:1",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_other_name_is_refused(method: str, host: str) -> None:
    answer = await ask(method, Host=host)
    assert (answer.status_code, answer.json()["type"]) == (421, "urn:mien:problem:misdirected-request")


def test_a_host_must_be_said_once() -> None:
    assert not is_loopback("127.0.0.1, evil.example")


@pytest.mark.parametrize("method", CHANGING)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:8080"])
async def test_a_page_of_another_site_changes_nothing(method: str, origin: str) -> None:
    answer = await ask(method, Origin=origin, **FORM)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:mien:problem:foreign-origin")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8080", "http://listed.example"])
async def test_our_pages_and_programs_may(method: str, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert (await ask(method, **headers)).status_code == 200


async def test_reading_is_left_to_the_browser_which_shows_no_answer_to_other_sites() -> None:
    assert (await ask("GET", Origin="http://evil.example")).status_code == 200
