"""Bodies are bounded in size and time before an application sees them, and every answer carries its headers."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from mien_shared.http import hang_up
from mien_shared.http.edge import BodyLimit, SecurityHeaders


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_up, "_DISCARD_S", 0.01)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body it was given."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"private")]})
    await send({"type": "http.response.body", "body": body})


async def ask(
    app: BodyLimit | SecurityHeaders, chunks: list[bytes], ends: bool = True, **scope: object
) -> list[Message]:
    """What an application sends for a body of these chunks, after which it ends or nothing more comes."""
    sent: list[Message] = []
    coming = iter(range(len(chunks)))

    async def receive() -> Message:
        if (index := next(coming, None)) is None:
            await asyncio.Event().wait()
        assert index is not None
        return {"type": "http.request", "body": chunks[index], "more_body": not ends or index < len(chunks) - 1}

    async def send(message: Message) -> None:
        sent.append(message)

    whole: Scope = {"type": "http", "path": "/", "headers": []} | scope
    await app(whole, receive, send)
    return sent


def answer(sent: list[Message]) -> tuple[int, bytes]:
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("chunks", [[b""], [b"abc"], [b"ab", b"", b"c" * 8]])
async def test_a_body_within_its_limit_arrives_whole(chunks: list[bytes]) -> None:
    assert answer(await ask(BodyLimit(echo, 10), chunks)) == (200, b"".join(chunks))


async def test_a_longer_one_is_refused_by_what_it_says_or_by_what_comes() -> None:
    for chunks, headers in (([b"a" * 6, b"b" * 6], []), ([b"a"], [(b"content-length", b"11")])):
        status, body = answer(await ask(BodyLimit(echo, 10), chunks, headers=headers))
        assert (status, json.loads(body)["type"]) == (413, "urn:mien:problem:body-too-large")


async def test_one_that_does_not_come_is_given_up() -> None:
    status, body = answer(await ask(BodyLimit(echo, 10, timeout_s=0.01), [b"a"], ends=False))
    assert (status, json.loads(body)["type"]) == (408, "urn:mien:problem:body-timeout")


async def test_routes_that_read_for_themselves_do() -> None:
    app = BodyLimit(echo, 10, streaming=["/upload"])
    assert answer(await ask(app, [b"a" * 11], path="/upload")) == (200, b"a" * 11)
    assert answer(await ask(app, [b"a" * 11], path="/upload/"))[0] == 413


async def test_a_client_that_goes_gets_no_answer() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await BodyLimit(echo, 10)({"type": "http", "path": "/", "headers": []}, receive, send)
    assert sent == []


@pytest.mark.parametrize(("path", "policy"), [("/v1/x", "default-src 'none'"), ("/docs", "frame-ancestors 'none'")])
async def test_headers_are_set_where_an_answer_has_none(path: str, policy: str) -> None:
    headers = dict((await ask(SecurityHeaders(echo), [b""], path=path))[0]["headers"])
    assert headers[b"cache-control"] == b"private", "an answer's own word counts"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"content-security-policy"].startswith(policy.encode())
