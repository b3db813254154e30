"""The uplink against a real WebSocket server: newest wins, reconnects, and ends when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

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


async def test_an_uplink_closed_for_good_is_not_opened_again() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1008, "too many bad packets")

    async with server(handler) as url, Uplink(url, "secret") as uplink:
        uplink.push(packet(1))
        with pytest.raises(UplinkClosed, match=r"^the service closed the uplink: too many bad packets$"):
            await push_until_refused(uplink)
        assert uplink.reconnects == 0
