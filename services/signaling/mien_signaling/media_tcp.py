"""Viewers over TCP at the media port (RFC 6544, passive; framing of RFC 4571).

The first frame of a connection must be a binding request that a viewer has signed. From then on the connection is a
path of this viewer, and the path's address is the remote address of the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import cast

from aioice import stun

from mien_signaling.framing import Deframer, FrameTooLong, framed
from mien_signaling.media_paths import MAX_ADDRESSES, Address, Agents, Dropped, is_stun, read_stun
from mien_signaling.media_udp import Receiver

logger = logging.getLogger(__name__)

#: In how many seconds a connection must say whose it is.
FIRST_FRAME_TIMEOUT_S = 5.0
#: Connections that have not said it yet. One more replaces the oldest, so a stranger who opens connections and sends
#: nothing hinders only clients that need more time for their first frame than the stranger needs for this many.
MAX_UNKNOWN = 128
#: A browser opens one connection for each of its network interfaces. One more replaces the one unused for longest.
MAX_PER_VIEWER = 8
#: Datagrams that wait for a viewer who does not read: about a second of 1.2 Mbit/s, and one IDR fits in.
MAX_WAITING_BYTES = 192 << 10
#: What the kernel holds besides, apart from what is on its way. Its own choice would be up to 4 MiB.
_UNSENT_IN_KERNEL_BYTES = 64 << 10
#: What is read at once. A viewer could put thousands of frames into the 256 KiB that asyncio reads by itself.
_READ_BYTES = 4096
_CLOSE_TIMEOUT_S = 5.0
_BACKLOG = 128


class TcpEnd(StrEnum):
    """Why a TCP connection at the media port ended."""

    CLOSED = "closed"  # by the client, or by its network
    LEFT = "left"  # its viewer was removed
    SILENT = "silent"  # no frame in time
    REFUSED = "refused"  # the first frame was not a binding request of a viewer
    FRAME_TOO_LONG = "frame_too_long"
    TOO_MANY = "too_many"


class TcpConnection(asyncio.BufferedProtocol):
    """One connection, of a stranger at first, then of a viewer."""

    def __init__(self, listener: SharedTcp) -> None:
        self.address: Address = ("", 0)
        self.viewer: Receiver | None = None
        self.last_used = 0  # counts the datagrams of all connections
        self.end: TcpEnd | None = None
        self._listener = listener
        self._buffer = bytearray(_READ_BYTES)
        self._deframer = Deframer()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # it was reset before we looked
            transport.abort()
            return
        self.address = (peer[0], peer[1])
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_IN_KERNEL_BYTES
            )
        self._timer = asyncio.get_running_loop().call_later(
            self._listener.first_frame_timeout_s, self.close, TcpEnd.SILENT
        )
        self._listener.opened(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._deframer.feed(bytes(self._buffer[:nbytes])):
                if self.end is None:
                    self._listener.received(self, frame)
        except FrameTooLong:
            self.close(TcpEnd.FRAME_TOO_LONG)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._listener.closed(self, self.end or TcpEnd.CLOSED)

    def belongs_to(self, viewer: Receiver) -> None:
        self.viewer = viewer
        if self._timer is not None:
            self._timer.cancel()

    def send(self, datagram: bytes) -> Dropped | None:
        """Send one datagram; it is dropped, and the reason returned, while too many wait."""
        if self._transport is None or self.end is not None:
            return Dropped.CLOSED_TCP
        if self._transport.get_write_buffer_size() + len(datagram) > MAX_WAITING_BYTES:
            return Dropped.SLOW_TCP
        self._transport.write(framed(datagram))
        return None

    def close(self, end: TcpEnd) -> None:
        """Close it for this reason. A viewer still gets what waits, if it reads; a stranger gets nothing."""
        if self._transport is None or self.end is not None:
            return
        self.end = end
        if self._timer is not None:
            self._timer.cancel()
        if self.viewer is None or self._listener.is_closed:
            self._transport.abort()
            return
        self._transport.close()
        self._timer = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._transport.abort)


class SharedTcp:
    """Owns a bound socket that listens from `start` to `close`.

    drop: called for each datagram that is dropped. ended: called for each connection that ends. most: how many
    connections may belong to viewers at once.
    """

    def __init__(
        self,
        bound: socket.socket,
        most: int,
        drop: Callable[[Dropped], None],
        ended: Callable[[TcpEnd], None],
        first_frame_timeout_s: float = FIRST_FRAME_TIMEOUT_S,
    ) -> None:
        self.agents: Agents[Receiver] = Agents()
        self.first_frame_timeout_s = first_frame_timeout_s
        self.is_closed = False
        self._socket = bound
        self._most = most
        self._drop = drop
        self._ended = ended
        self._server: asyncio.Server | None = None
        self._unknown: dict[TcpConnection, None] = {}  # in the order in which they came
        self._known: dict[Receiver, dict[Address, TcpConnection]] = {}
        self._admitted: dict[Receiver, int] = {}
        self._uses = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: TcpConnection(self), sock=self._socket, backlog=_BACKLOG)

    def close(self) -> None:
        """Close the listener and every connection. May be called more than once."""
        self.is_closed = True
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for connection in [*self._unknown, *self._connections()]:
            connection.close(TcpEnd.LEFT)

    @property
    def unknown(self) -> int:
        """Connections that have not said whose they are."""
        return len(self._unknown)

    @property
    def known(self) -> int:
        """Connections of viewers."""
        return sum(map(len, self._known.values()))

    def join(self, viewer: Receiver) -> None:
        """From now on connections may be this viewer's."""
        self.agents.add(viewer)
        self._known[viewer] = {}
        self._admitted[viewer] = 0

    def leave(self, viewer: Receiver) -> None:
        """Close a viewer's connections. May be called more than once."""
        self.agents.discard(viewer)
        self._admitted.pop(viewer, None)
        for connection in list(self._known.pop(viewer, {}).values()):
            connection.close(TcpEnd.LEFT)

    def send(self, viewer: Receiver, datagram: bytes, address: Address) -> None:
        """Send over this viewer's connection to this address."""
        connection = self._known.get(viewer, {}).get(address)
        if connection is None:
            self._drop(Dropped.CLOSED_TCP)
            return
        self._used(connection)
        dropped = connection.send(datagram)
        if dropped is not None:
            self._drop(dropped)

    def opened(self, connection: TcpConnection) -> None:
        """A connection was accepted."""
        if len(self._unknown) >= MAX_UNKNOWN:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            oldest.close(TcpEnd.TOO_MANY)
        self._unknown[connection] = None

    def received(self, connection: TcpConnection, frame: bytes) -> None:
        """A connection received a datagram."""
        self._used(connection)
        message = read_stun(frame) if is_stun(frame) else None
        if connection.viewer is None:
            self._admit(connection, message)
        elif is_stun(frame) and (wrong := self._wrong(connection.viewer, message)):
            self._drop(wrong)
            return
        if connection.viewer is None:
            return
        try:
            connection.viewer.datagram_received(frame, connection.address)
        except Exception:  # one viewer's datagram must not stop the others'
            logger.exception("a datagram of a viewer could not be handled")

    def closed(self, connection: TcpConnection, end: TcpEnd) -> None:
        """A connection has ended."""
        self._unknown.pop(connection, None)
        if connection.viewer is not None:
            of_viewer = self._known.get(connection.viewer, {})
            if of_viewer.get(connection.address) is connection:
                del of_viewer[connection.address]
        self._ended(end)

    def _admit(self, connection: TcpConnection, request: stun.Message | None) -> None:
        """Make it the connection of the viewer who signed its first frame, or close it."""
        viewer = Dropped.MALFORMED if request is None else self.agents.asked_by(request)
        if isinstance(viewer, Dropped):
            self._drop(viewer)
            connection.close(TcpEnd.REFUSED)
            return
        of_viewer = self._known[viewer]
        if self._admitted[viewer] >= MAX_ADDRESSES or self.known >= self._most:
            self._drop(Dropped.TOO_MANY_ADDRESSES)
            connection.close(TcpEnd.TOO_MANY)
            return
        if len(of_viewer) >= MAX_PER_VIEWER:
            unused = min(of_viewer.values(), key=lambda one: one.last_used)
            del of_viewer[unused.address]
            unused.close(TcpEnd.TOO_MANY)
        self._admitted[viewer] += 1
        del self._unknown[connection]
        connection.belongs_to(viewer)
        of_viewer[connection.address] = connection

    def _wrong(self, viewer: Receiver, message: stun.Message | None) -> Dropped | None:
        """Why this message is not one of the viewer's, None if it is."""
        if message is None:
            return Dropped.MALFORMED
        if message.message_class is not stun.Class.REQUEST:
            return None
        agent = self.agents.asked_by(message)
        if isinstance(agent, Dropped):
            return agent
        return None if agent is viewer else Dropped.UNAUTHENTICATED

    def _used(self, connection: TcpConnection) -> None:
        self._uses += 1
        connection.last_used = self._uses

    def _connections(self) -> list[TcpConnection]:
        return [connection for of_viewer in self._known.values() for connection in of_viewer.values()]
