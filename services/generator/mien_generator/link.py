"""Messages and file descriptors between two processes of one generator, over a pair of connected sockets.

A message is its length and its number of descriptors in four bytes each, then its bytes. The descriptors travel beside
its first byte. The end of the other process is the end of the link, however it died. So every process of a generator
ends with its host.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Self

_HEADER = struct.Struct("<II")
#: No message is longer: a worker's metrics take about 40 kB.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_MOST_DESCRIPTORS = 4
#: Room for what a busy process has not read yet. A system may allow less: Linux by default 212992 bytes, which is some
#: 500 requests for faces.
_BUFFER_BYTES = 1024 * 1024
#: A process that has read nothing for so long that its room is full, and for this time more, is cut off.
_SEND_TIMEOUT_US = 200_000


class LinkClosed(ConnectionError):
    """The other process has ended, or does not read."""


class Link:
    """One end. One thread may receive while any threads send."""

    def __init__(self, end: socket.socket, *, waits: bool = True) -> None:
        """waits: `send` waits a moment for a reader that is slow. Otherwise it cuts such a reader off at once."""
        self._socket = end
        self._flags = 0 if waits else socket.MSG_DONTWAIT
        self._sending = threading.Lock()
        self._received = bytearray()
        self._descriptors: list[int] = []
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, _SEND_TIMEOUT_US))

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """A link, and the other end's socket for another process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    @classmethod
    def over(cls, descriptor: int, *, waits: bool = True) -> Self:
        """The link whose end is this descriptor, which now belongs to it."""
        return cls(socket.socket(fileno=descriptor), waits=waits)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message. Raises LinkClosed if the other process has ended, or does not read.

        The descriptors stay open here; the receiver gets its own. Raises ValueError if there is too much to send.
        """
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is too long")
        if len(descriptors) > _MOST_DESCRIPTORS:
            raise ValueError(f"a message carries at most {_MOST_DESCRIPTORS} descriptors, not {len(descriptors)}")
        data = _HEADER.pack(len(message), len(descriptors)) + message
        with self._sending:
            try:
                if descriptors:
                    sent = socket.send_fds(self._socket, [data], descriptors, self._flags)
                else:
                    sent = self._socket.send(data, self._flags)
                if sent < len(data):
                    self._socket.sendall(data[sent:], self._flags)
            except OSError as error:  # after half a message, no further one could be read
                self.shut()
                raise LinkClosed("the other process has ended or does not read") from error

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for a message, and the descriptors that came with it. Raises LinkClosed.

        The caller owns the descriptors and closes them.
        """
        while (received := self._next()) is None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, _MOST_DESCRIPTORS)
            except OSError as error:
                raise LinkClosed("the link was closed") from error
            self._descriptors += descriptors
            if not data:
                raise LinkClosed("the other process has ended")
            self._received += data
        return received

    def _next(self) -> tuple[bytes, list[int]] | None:
        if len(self._received) < _HEADER.size:
            return None
        length, count = _HEADER.unpack_from(self._received)
        if length > MAX_MESSAGE_BYTES:
            raise LinkClosed(f"a message of {length} bytes is too long")
        end = _HEADER.size + length
        if len(self._received) < end:
            return None
        if (missing := count - len(self._descriptors)) > 0:  # the system drops them if this process has too many open
            raise LinkClosed(f"{missing} of {count} descriptors of a message are missing")
        message = bytes(self._received[_HEADER.size : end])
        del self._received[:end]
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return message, descriptors

    def shut(self) -> None:
        """End the link. A thread in `receive` gets LinkClosed."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other process has ended

    def close_copy(self) -> None:
        """Close this process' copy of a link that a forked process has inherited. The link goes on."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def close(self) -> None:
        self.shut()
        self.close_copy()
