"""The limits of the TCP listener, with real connections."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from integration.media_ports import check

from mien_signaling import media_tcp
from mien_signaling.framing import framed
from mien_signaling.media_paths import Address, Dropped
from mien_signaling.media_tcp import SharedTcp, TcpEnd
from mien_signaling.media_udp import bound_socket

PASSWORD = "p" * 22


@dataclass(eq=False)
class Viewer:
    ufrag: str
    password: str = PASSWORD
    remote_password: str | None = None
    received: list[tuple[bytes, Address]] = field(default_factory=list)
    fails: bool = False

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self.fails:
            raise KeyError("PRIORITY")
        self.received.append((data, addr))


@dataclass
class Listener:
    """A listener and what it has reported."""

    shared: SharedTcp
    address: Address
    dropped: Counter[Dropped]
    ended: Counter[TcpEnd]
    open: list[asyncio.StreamWriter] = field(default_factory=list)  # without a reference the connection is closed

    async def connect(self, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.open.append(writer)
        writer.write(first)
        return reader, writer

    def hello(self, viewer: Viewer) -> bytes:
        return framed(check(viewer.ufrag, viewer.password))


@asynccontextmanager
async def listening(most: int = 10, first_frame_timeout_s: float = 60.0) -> AsyncIterator[Listener]:
    bound = bound_socket("127.0.0.1", 0, socket.SOCK_STREAM)
    dropped, ended = Counter[Dropped](), Counter[TcpEnd]()
    shared = SharedTcp(
        bound, most, lambda reason: dropped.update([reason]), lambda end: ended.update([end]), first_frame_timeout_s
    )
    address = bound.getsockname()
    await shared.start()
    yield Listener(shared, address, dropped, ended)
    shared.close()
    async with asyncio.timeout(20):
        while shared.known or shared.unknown:
            await asyncio.sleep(0.01)


async def until(reader: asyncio.StreamReader) -> bytes:
    """What arrives until the connection ends."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_a_signed_request_makes_a_connection_the_viewers_in_both_directions() -> None:
    one, two = Viewer("one"), Viewer("two")
    async with listening() as listener:
        listener.shared.join(one)
        listener.shared.join(two)
        reader, writer = await listener.connect(listener.hello(one) + framed(b"\x80media"))
        async with asyncio.timeout(20):
            while len(one.received) < 2:
                await asyncio.sleep(0.01)
        (_, address), media = one.received
        assert media == (b"\x80media", writer.get_extra_info("sockname"))
        listener.shared.send(one, b"answer", address)
        assert await reader.readexactly(8) == framed(b"answer")
        listener.shared.send(two, b"not its connection", address)
        assert listener.dropped == {Dropped.CLOSED_TCP: 1}
        assert two.received == []
        listener.shared.leave(one)
        assert await until(reader) == b""
    assert listener.ended == {TcpEnd.LEFT: 1}


async def test_a_connection_stays_with_its_viewer() -> None:
    one, two = Viewer("one"), Viewer("two")
    async with listening() as listener:
        listener.shared.join(one)
        listener.shared.join(two)
        wrong = [listener.hello(two), framed(check("one", "q" * 22)), framed(b"\x00broken")]
        await listener.connect(b"".join([listener.hello(one), *wrong, framed(b"\x80end")]))
        async with asyncio.timeout(20):
            while len(one.received) < 2:
                await asyncio.sleep(0.01)
        assert two.received == []
        assert listener.dropped == {Dropped.UNAUTHENTICATED: 2, Dropped.MALFORMED: 1}


async def test_a_silent_connection_is_closed_after_a_while() -> None:
    async with listening(first_frame_timeout_s=0.05) as listener:
        reader, _ = await listener.connect(b"\x00")
        assert await until(reader) == b""
    assert listener.ended == {TcpEnd.SILENT: 1}


async def test_viewers_have_only_so_many_connections_together() -> None:
    viewers = [Viewer(str(number)) for number in range(3)]
    async with listening(most=2) as listener:
        for viewer in viewers:
            listener.shared.join(viewer)
        await listener.connect(listener.hello(viewers[0]))
        await listener.connect(listener.hello(viewers[1]))
        async with asyncio.timeout(20):
            while listener.shared.known < 2:
                await asyncio.sleep(0.01)
        reader, _ = await listener.connect(listener.hello(viewers[2]))
        assert await until(reader) == b""
        assert listener.ended == {TcpEnd.TOO_MANY: 1}
        assert viewers[2].received == []


async def test_a_viewer_has_only_so_many_connections_in_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_tcp, "MAX_ADDRESSES", 3)
    viewer = Viewer("one")
    async with listening() as listener:
        listener.shared.join(viewer)
        for number in range(3):
            _, writer = await listener.connect(listener.hello(viewer))
            async with asyncio.timeout(20):
                while len(viewer.received) <= number:
                    await asyncio.sleep(0.01)
            writer.close()
        reader, _ = await listener.connect(listener.hello(viewer))
        assert await until(reader) == b""
        assert listener.dropped == {Dropped.TOO_MANY_ADDRESSES: 1}


async def test_an_error_of_one_viewer_closes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    viewer, other = Viewer("one", fails=True), Viewer("two")
    async with listening() as listener:
        listener.shared.join(viewer)
        listener.shared.join(other)
        await listener.connect(listener.hello(viewer))
        await listener.connect(listener.hello(other))
        async with asyncio.timeout(20):
            while not other.received or not caplog.records:
                await asyncio.sleep(0.01)
        assert listener.shared.known == 2
    assert [record.message for record in caplog.records] == ["a datagram of a viewer could not be handled"]
