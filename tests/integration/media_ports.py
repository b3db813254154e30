"""What the tests of the media port need: a free port, hand-made checks, and ways to it over TCP and through a NAT."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import cast

from aioice import stun
from aioice.ice import get_host_addresses

from mien_signaling.framing import Deframer, framed


def host_address() -> str:
    """An IPv4 address of this machine at which signaling listens."""
    return str(get_host_addresses(use_ipv4=True, use_ipv6=False)[0])


def free_port() -> int:
    """A port that is free for UDP and TCP, below those that the system gives to other tests meanwhile."""
    while True:
        port = random.randrange(10_000, 32_000)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp, closing(socket.socket()) as tcp:
            try:
                udp.bind(("0.0.0.0", port))
                tcp.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def candidates(sdp: str) -> list[tuple[str, str, int]]:
    """(transport, address, port) of each candidate of a description."""
    found = re.findall(r"^a=candidate:\S+ \d+ (\w+) \d+ (\S+) (\d+) ", sdp, re.MULTILINE)
    return [(transport, address, int(port)) for transport, address, port in found]


def credentials(sdp: str) -> tuple[str, str]:
    """The user fragment and the password of a description."""
    ufrag, password = (re.search(rf"^a=ice-{name}:(\S+)", sdp, re.MULTILINE) for name in ("ufrag", "pwd"))
    assert ufrag and password
    return ufrag[1], password[1]


def check(ufrag: str, password: str, remote_ufrag: str = "them", *, nominates: bool = False) -> bytes:
    """A binding request as a viewer signs it. ufrag, password: of signaling's answer."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{ufrag}:{remote_ufrag}"
    request.attributes["PRIORITY"] = 1
    request.attributes["ICE-CONTROLLING"] = 1
    if nominates:
        request.attributes["USE-CANDIDATE"] = None
    request.add_message_integrity(password.encode())
    return bytes(request)


@dataclass
class TcpBridge(asyncio.DatagramProtocol):
    """Carries a viewer's datagrams over a TCP connection, as a client with ICE-TCP would.

    server: the address to connect to. reads: whether it reads what the server sends.
    """

    server: tuple[str, int]
    reads: asyncio.Event
    viewer: tuple[str, int] | None = None
    carried: int = 0
    writer: asyncio.StreamWriter | None = None
    udp: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.udp = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.viewer = addr
        if self.writer is not None:
            self.writer.write(framed(data))

    async def carry(self) -> None:
        """Connect and pass on what comes until the connection ends."""
        reader, self.writer = await asyncio.open_connection(*self.server, limit=4096)
        deframer = Deframer(65_535)
        while await self.reads.wait() and (data := await reader.read(4096)):
            for datagram in deframer.feed(data):
                self.carried += 1
                if self.viewer is not None and self.udp is not None:
                    self.udp.sendto(datagram, self.viewer)


@asynccontextmanager
async def bridge_to(server: tuple[str, int]) -> AsyncIterator[TcpBridge]:
    reads = asyncio.Event()
    reads.set()
    transport, bridge = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: TcpBridge(server, reads), local_addr=(server[0], 0)
    )
    carrying = asyncio.create_task(bridge.carry())
    try:
        yield bridge
    finally:
        carrying.cancel()
        transport.close()
        if bridge.writer is not None:
            bridge.writer.close()


class MovingNat(asyncio.DatagramProtocol):
    """Carries a viewer's datagrams over UDP from an address that can change, as a NAT's may."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.udp: asyncio.DatagramTransport | None = None
        self.carried_since_move = 0
        self._server = server
        self._viewer: tuple[str, int] | None = None
        self._outside = self._opened()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.udp = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._viewer = addr
        self._outside.sendto(data, self._server)

    def move(self, first: bytes) -> None:
        """Change the address; the first datagram from it is this one."""
        self.close()
        self._outside = self._opened()
        self.carried_since_move = 0
        self._outside.sendto(first, self._server)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._outside)
        self._outside.close()

    def _opened(self) -> socket.socket:
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.setblocking(False)
        outside.bind((self._server[0], 0))
        asyncio.get_running_loop().add_reader(outside, self._receive)
        return outside

    def _receive(self) -> None:
        data = self._outside.recv(4096)
        self.carried_since_move += 1
        if self._viewer is not None and self.udp is not None:
            self.udp.sendto(data, self._viewer)


@asynccontextmanager
async def moving_nat(server: tuple[str, int]) -> AsyncIterator[MovingNat]:
    transport, nat = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: MovingNat(server), local_addr=(server[0], 0)
    )
    try:
        yield nat
    finally:
        nat.close()
        transport.close()


def only_by(way: TcpBridge | MovingNat) -> Callable[[str], str]:
    """Changes an answer: this is its only candidate then."""

    def changed(answer: str) -> str:
        assert way.udp is not None
        host, port = way.udp.get_extra_info("sockname")[:2]
        lines = [line for line in answer.splitlines() if not line.startswith("a=candidate:")]
        place = next(index for index, line in enumerate(lines) if line.startswith("a=ice-ufrag"))
        lines.insert(place, f"a=candidate:way 1 udp 2130706431 {host} {port} typ host")
        return "\r\n".join(lines) + "\r\n"

    return changed
