"""uvicorn with our WebSocket protocol, on a real socket: it reads ahead, but not without end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect

from mien_gateway.read_ahead import MAX_WAITING, ReadAheadProtocol

pytestmark = pytest.mark.integration

MESSAGE_BYTES = 128
_READ_BYTES = 256 * 1024  # asyncio's longest read of a socket
_FRAME_BYTES = MESSAGE_BYTES + 8
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# Frames of a client, masked with zeros (RFC 6455, section 5.2).
_PING = b"\x89\xfd" + bytes(4 + 125)
_MESSAGE = b"\x82\x81" + bytes(4 + 1)


class SlowApp:
    """Takes nothing before it is told to, then everything."""

    def __init__(self) -> None:
        self.may_take = asyncio.Event()
        self.taken: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await self.may_take.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.taken.append(message["bytes"])


class ClosingApp:
    """Takes one message, then closes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 4410})


@asynccontextmanager
async def serving(app: SlowApp | ClosingApp) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A server with our protocol, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, ws=ReadAheadProtocol, lifespan="off", log_config=None, ws_ping_interval=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield server, listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def connected(app: SlowApp) -> AsyncIterator[tuple[ReadAheadProtocol, ClientConnection]]:
    """The server's end of a connection, and the client's."""
    async with (
        serving(app) as (server, port),
        connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as client,
    ):
        (protocol,) = (one for one in server.server_state.connections if isinstance(one, ReadAheadProtocol))
        try:
            yield protocol, client
        finally:
            app.may_take.set()  # or the client's close would not be read


async def waiting(protocol: ReadAheadProtocol, at_least: int) -> None:
    async with asyncio.timeout(5):
        while protocol.queue.qsize() < at_least:
            await asyncio.sleep(0.01)


async def test_a_few_messages_wait_without_a_pause() -> None:
    async with connected(SlowApp()) as (protocol, client):
        for number in range(MAX_WAITING - 1):
            await client.send(bytes([number]) * MESSAGE_BYTES)
        await waiting(protocol, MAX_WAITING - 1)
        assert not protocol.read_paused
        await client.send(bytes(MESSAGE_BYTES))
        await waiting(protocol, MAX_WAITING)
        assert protocol.read_paused


async def test_a_sender_that_is_too_fast_is_stopped_and_loses_nothing() -> None:
    app = SlowApp()
    sent = [number.to_bytes(4, "big") * (MESSAGE_BYTES // 4) for number in range(100_000)]
    async with connected(app) as (protocol, client):

        async def send_all() -> None:
            for message in sent:
                await client.send(message)

        sending = asyncio.create_task(send_all())
        await waiting(protocol, MAX_WAITING)
        await asyncio.sleep(0.2)
        assert not sending.done()
        assert protocol.queue.qsize() <= MAX_WAITING + _READ_BYTES // _FRAME_BYTES
        app.may_take.set()
        async with asyncio.timeout(30):
            await sending
            while len(app.taken) < len(sent):
                await asyncio.sleep(0.01)
    assert app.taken == sent


async def test_a_connection_ends_although_its_client_reads_neither_pongs_nor_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mien_gateway.read_ahead.GOODBYE_S", 0.2)
    loop = asyncio.get_running_loop()
    async with serving(ClosingApp()) as (server, port):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, _HANDSHAKE)
            assert (await loop.sock_recv(client, 12)) == b"HTTP/1.1 101"
            (protocol,) = (one for one in server.server_state.connections if isinstance(one, ReadAheadProtocol))
            while not protocol.transport.get_write_buffer_size():
                await loop.sock_sendall(client, 50 * _PING)
                await asyncio.sleep(0)
            assert not protocol.transport.is_closing()
            await loop.sock_sendall(client, _MESSAGE)
            async with asyncio.timeout(10):
                while protocol in server.server_state.connections:
                    await asyncio.sleep(0.01)
