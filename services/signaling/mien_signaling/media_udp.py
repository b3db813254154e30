"""A UDP socket that all viewers share. media_paths.py knows whose datagram one is."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from mien_signaling.framing import MAX_DATAGRAM_BYTES
from mien_signaling.media_paths import Address, Agent, Dropped, Paths

logger = logging.getLogger(__name__)

#: What one call of the event loop reads at most, so that a flood leaves time for everything else.
_DATAGRAMS_PER_READ = 64
#: The kernel gives what its limits allow: net.core.rmem_max and wmem_max.
_SOCKET_BUFFER_BYTES = 4 << 20
#: What waits in this process while the kernel takes nothing: an IDR of 80 kB for 400 viewers.
MAX_WAITING_BYTES = 32 << 20


class Receiver(Agent, Protocol):
    """An agent that takes datagrams."""

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """One datagram and where it came from."""


def bound_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket at this address of the host, not blocking. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, kind)
    try:
        if family is socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind is socket.SOCK_STREAM:
            # Connections of a process that has just ended do not hinder its successor. (For UDP this would let two
            # processes share the port.)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setblocking(False)
        opened.bind((address, port))
    except OSError:
        opened.close()
        raise
    return opened


class SharedUdp:
    """Owns a bound socket from `start` to `close`. drop: called for each datagram that is dropped."""

    def __init__(self, bound: socket.socket, drop: Callable[[Dropped], None]) -> None:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        self.paths: Paths[Receiver] = Paths()
        self._socket = bound
        self._sendto = bound.sendto
        self._drop = drop
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self.waiting_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """May be called more than once."""
        if self._socket.fileno() >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
            self._socket.close()

    def send(self, datagram: bytes, address: Address) -> None:
        """Send at once, or after the datagrams that wait. What does not fit among them is dropped."""
        if not self._waiting:
            try:
                self._sendto(datagram, address)
                return
            except (BlockingIOError, InterruptedError):
                asyncio.get_running_loop().add_writer(self._socket, self._write)
            except OSError:
                self._drop(Dropped.SEND_FAILED)
                return
        if self.waiting_bytes + len(datagram) > MAX_WAITING_BYTES:
            self._drop(Dropped.SEND_QUEUE_FULL)
            return
        self._waiting.append((datagram, address))
        self.waiting_bytes += len(datagram)

    def _write(self) -> None:
        while self._waiting:
            datagram, address = self._waiting[0]
            try:
                self._sendto(datagram, address)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._drop(Dropped.SEND_FAILED)
            self._waiting.popleft()
            self.waiting_bytes -= len(datagram)
        asyncio.get_running_loop().remove_writer(self._socket)

    def _read(self) -> None:
        for _ in range(_DATAGRAMS_PER_READ):
            try:
                datagram, source = self._socket.recvfrom(MAX_DATAGRAM_BYTES + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error of a datagram that was sent
                continue
            self._received(datagram, (source[0], source[1]))

    def _received(self, datagram: bytes, source: Address) -> None:
        if len(datagram) > MAX_DATAGRAM_BYTES:
            self._drop(Dropped.OVERSIZED)
            return
        receiver = self.paths.route(datagram, source)
        if isinstance(receiver, Dropped):
            self._drop(receiver)
            return
        try:
            receiver.datagram_received(datagram, source)
        except Exception:  # one viewer's datagram must not stop the others'
            logger.exception("a datagram of a viewer could not be handled")
