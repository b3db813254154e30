"""The uplink against a real WebSocket server: newest wins, reconnects, and ends when it is told to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from mien_client.api import Unreachable
from mien_client.uplink import Uplink, UplinkClosed
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, refuse: HTTPStatus | None = None, times: int | None = None) -> AsyncIterator[str]:
    """Refuses so many handshakes, or all."""
    left = times

    def check(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal left
        assert request.headers["Authorization"] == "Bearer secret"
        if refuse is None or left == 0:
            return None
        left = None if left is None else left - 1
        return connection.respond(refuse, "no")

    async with serve(handler, "127.0.0.1", 0, process_request=check) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/v1/sessions/s/uplink"


def packet(number: int) -> MotionPacket:
    return MotionPacket(number, 0, Keypoints.at_rest())


async def push_until_refused(uplink: Uplink) -> None:
    async with asyncio.timeout(5):
        while True:
            uplink.push(packet(2))
            await asyncio.sleep(0.02)


async def test_packets_arrive_and_of_those_pushed_at_once_the_newest() -> None:
    got: asyncio.Queue[int] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        async for data in connection:
            assert isinstance(data, bytes)
            await got.put(MotionPacket.unpack(data).sequence)

    async with server(handler) as url, Uplink(url, "secret") as uplink:
        uplink.push(packet(1))
        assert await asyncio.wait_for(got.get(), 5) == 1
        for number in range(2, 6):
            uplink.push(packet(number))
        assert await asyncio.wait_for(got.get(), 5) == 5
        assert (uplink.sent, uplink.superseded, uplink.sent_bytes) == (2, 3, 256)


async def test_a_connection_that_breaks_is_made_again() -> None:
    got: asyncio.Queue[int] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        data = await connection.recv()
        assert isinstance(data, bytes)
        await got.put(MotionPacket.unpack(data).sequence)
        await connection.close(1001)

    async with server(handler) as url, Uplink(url, "secret") as uplink:
        uplink.push(packet(1))
        assert await asyncio.wait_for(got.get(), 5) == 1
        async with asyncio.timeout(5):
            while got.empty():
                uplink.push(packet(2))
                await asyncio.sleep(0.02)
        assert await got.get() == 2
        assert uplink.reconnects >= 1


async def test_a_refused_uplink_says_so_at_once() -> None:
    async def handler(connection: ServerConnection) -> None: ...

    async with server(handler, HTTPStatus.FORBIDDEN) as url:
        with pytest.raises(UplinkClosed, match=r"^the service refused the uplink with HTTP status 403$"):
            async with Uplink(url, "secret"):
                pass


@pytest.mark.parametrize("refusal", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
async def test_an_uplink_that_is_to_come_back_does(refusal: HTTPStatus) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with server(handler, refusal, times=2) as url, Uplink(url, "secret") as uplink:
        assert uplink.reconnects == 2


@asynccontextmanager
async def front(url: str, answers: list[bytes]) -> AsyncIterator[str]:
    """A proxy in front of a server that is restarting: it gives these answers and breaks off, then passes all on."""
    parts = urlsplit(url)

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            target.write(data)
        target.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answers:
            writer.write(answers.pop(0))
            writer.close()
            return
        to, behind = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pipe(reader, behind), pipe(to, writer))

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}{parts.path}"


async def test_an_uplink_whose_handshake_breaks_off_is_tried_again() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()

    answers = [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]
    async with server(handler) as url, front(url, answers) as proxy, Uplink(proxy, "secret") as uplink:
        assert uplink.reconnects == 3


async def test_a_service_that_never_answers_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"^ws://127\.0\.0\.1:{port}/uplink does not answer: .*onnect"):
        async with Uplink(f"ws://127.0.0.1:{port}/uplink", "secret", connect_timeout_s=0.3):
            pass


async def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(UplinkClosed, match=r"^the service named an address of the uplink that is none: http://x"):
        async with Uplink("http://x", "secret"):
            pass


async def test_an_uplink_closed_for_good_is_not_opened_again() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1008, "too many bad packets")

    async with server(handler) as url, Uplink(url, "secret") as uplink:
        uplink.push(packet(1))
        with pytest.raises(UplinkClosed, match=r"^the service closed the uplink: too many bad packets$"):
            await push_until_refused(uplink)
        assert uplink.reconnects == 0
