"""The requests of the WHIP client, against servers on real sockets that answer what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from mien_shared.bus.messages import SessionRecord
from mien_signaling.sfu_client import (
    MAX_ANSWER_BYTES,
    BadAnswer,
    Created,
    SfuRefused,
    SfuUnreachable,
    publish,
    unpublish,
)
from mien_signaling.sfu_target import SfuTarget

SESSION = SessionRecord(session_id="s-1", avatar_id="a", created_at_ms=0)
_CREATED = "HTTP/1.1 201 Created\r\nLocation: /resource/1\r\nContent-Length: 3\r\n\r\nv=0"

#: The answer to a request, by its head and body.
Answer = Callable[[str], str | bytes]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[str]]]:
    """The origin of a server, and the requests that it has got."""
    requests: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("Content-Length")), 0)
        requests.append(head + (await reader.readexactly(length)).decode())
        said = answer(requests[-1])
        writer.write(said.encode() if isinstance(said, str) else said)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", requests


async def post(target: SfuTarget, timeout_s: float = 20) -> Created:
    return await publish(target, target.endpoint(SESSION, None), "v=0 our offer", timeout_s)


async def test_an_offer_is_posted_with_the_bearer_and_the_location_is_resolved() -> None:
    async with server(lambda _: _CREATED) as (origin, requests):
        created = await post(SfuTarget(f"{origin}/whip/{{session_id}}", "secret"))
        assert created == Created(f"{origin}/resource/1", "v=0")
        head, _, body = requests[0].partition("\r\n\r\n")
        assert head.startswith("POST /whip/s-1 HTTP/1.1") and body == "v=0 our offer"
        assert {"Content-Type: application/sdp", "Authorization: Bearer secret"} <= set(head.splitlines())


async def test_a_session_at_the_sfu_is_deleted_with_the_bearer() -> None:
    async with server(lambda _: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (origin, requests):
        await unpublish(SfuTarget(f"{origin}/whip"), f"{origin}/resource/1", "secret")
        assert requests[0].startswith("DELETE /resource/1 HTTP/1.1") and "Authorization: Bearer secret" in requests[0]


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
async def test_a_session_that_is_gone_at_the_sfu_counts_as_deleted(status: str) -> None:
    async with server(lambda _: f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n") as (origin, _):
        await unpublish(SfuTarget(f"{origin}/whip"), f"{origin}/resource/1", None)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_operator_s_origins_is_followed_with_bearer_and_offer(status: int) -> None:
    async with server(lambda _: _CREATED) as (edge, at_edge):
        redirect = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {edge}/edge\r\nContent-Length: 0\r\n\r\n"
        async with server(lambda _: redirect) as (origin, _):
            created = await post(SfuTarget(f"{origin}/whip", "secret", (edge,)))
            assert created.location == f"{edge}/resource/1"
            assert "Authorization: Bearer secret" in at_edge[0] and at_edge[0].endswith("v=0 our offer")


async def test_a_redirect_elsewhere_gets_no_request() -> None:
    async with server(lambda _: _CREATED) as (stranger, at_stranger):
        redirect = f"HTTP/1.1 307 Elsewhere\r\nLocation: {stranger}/\r\nContent-Length: 0\r\n\r\n"
        async with server(lambda _: redirect) as (origin, _):
            with pytest.raises(BadAnswer, match="another origin"):
                await post(SfuTarget(f"{origin}/whip", "secret"))
        assert at_stranger == []


async def test_a_location_elsewhere_is_refused_and_never_deleted() -> None:
    async with server(lambda _: _CREATED) as (stranger, at_stranger):
        created = _CREATED.replace("/resource/1", f"{stranger}/resource/1")
        async with server(lambda _: created) as (origin, _):
            with pytest.raises(BadAnswer, match="another origin"):
                await post(SfuTarget(f"{origin}/whip", "secret"))
            with pytest.raises(BadAnswer, match="another origin"):
                await unpublish(SfuTarget(f"{origin}/whip", "secret"), f"{stranger}/resource/1", "secret")
        assert at_stranger == []


async def test_endless_redirects_end() -> None:
    redirect = "HTTP/1.1 307 Again\r\nLocation: /whip\r\nContent-Length: 0\r\n\r\n"
    async with server(lambda _: redirect) as (origin, requests):
        with pytest.raises(BadAnswer, match="redirects more than 3 times"):
            await post(SfuTarget(f"{origin}/whip"))
        assert len(requests) == 4


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        ("HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nv=0", "no Location"),
        (_CREATED.encode().replace(b"v=0", b"\xff\xfe\xfd"), "decode"),
        (
            f"HTTP/1.1 201 Created\r\nLocation: /r\r\nContent-Length: {MAX_ANSWER_BYTES + 1}\r\n\r\n"
            + "x" * (MAX_ANSWER_BYTES + 1),
            "larger than",
        ),
        ("HTTP/1.1 307 Elsewhere\r\nContent-Length: 0\r\n\r\n", "redirects more than"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_named(answer: str | bytes, flaw: str) -> None:
    async with server(lambda _: answer) as (origin, _):
        with pytest.raises(BadAnswer, match=flaw):
            await post(SfuTarget(f"{origin}/whip"))


@pytest.mark.parametrize(
    ("header", "retry_after_s"),
    [("Retry-After: 7\r\n", 7), ("Retry-After: 99999\r\n", 300), ("Retry-After: tomorrow\r\n", 0), ("", 0)],
)
async def test_a_refusal_has_the_status_and_when_to_come_back(header: str, retry_after_s: float) -> None:
    async with server(lambda _: f"HTTP/1.1 503 Full\r\n{header}Content-Length: 0\r\n\r\n") as (origin, _):
        with pytest.raises(SfuRefused) as refused:
            await post(SfuTarget(f"{origin}/whip"))
        assert (refused.value.status, refused.value.retry_after_s) == (503, retry_after_s)


@pytest.mark.parametrize(
    "answer", ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "", "HTTP/1.1 201 Cr", "HTTP/1.1 201 X\r\nA: " + "x" * 20_000]
)
async def test_what_is_not_http_counts_as_unreachable(answer: str) -> None:
    async with server(lambda _: answer) as (origin, _):
        with pytest.raises(SfuUnreachable):
            await post(SfuTarget(f"{origin}/whip"))


async def test_a_port_where_nothing_listens_counts_as_unreachable() -> None:
    async with server(lambda _: _CREATED) as (origin, _):
        pass
    with pytest.raises(SfuUnreachable, match="could not be reached"):
        await post(SfuTarget(f"{origin}/whip"))


async def test_a_server_that_never_answers_is_given_up() -> None:
    hanging: Callable[..., Awaitable[None]] = lambda *_: asyncio.sleep(3600)  # noqa: E731
    async with await asyncio.start_server(hanging, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(SfuUnreachable, match="in time"):
            await post(SfuTarget(f"http://127.0.0.1:{port}/whip"), timeout_s=0.2)
