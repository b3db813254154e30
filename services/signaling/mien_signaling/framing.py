"""Framing of datagrams on a TCP connection (RFC 4571, section 2): two bytes of length, then the datagram. Pure."""

from __future__ import annotations

from struct import Struct

_LENGTH = Struct("!H")

#: The longest datagram that we take from a viewer. DTLS, RTCP and STUN fit into one Ethernet frame.
MAX_DATAGRAM_BYTES = 2048


class FrameTooLong(ValueError):
    """The other side announced a longer datagram than we take. The connection cannot be read any further."""


def framed(datagram: bytes) -> bytes:
    """The datagram as a frame. Raises struct.error above 65,535 bytes."""
    return _LENGTH.pack(len(datagram)) + datagram


class Deframer:
    """Cuts the bytes of one connection into datagrams. Keeps less than one frame of `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_DATAGRAM_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, received: bytes) -> list[bytes]:
        """The datagrams that are complete with these bytes. Raises FrameTooLong.

        A frame of length 0 carries nothing and is left out.
        """
        data, start, datagrams = self._rest + received, 0, []
        while len(data) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, start)
            if length > self._max_bytes:
                raise FrameTooLong(f"a frame of {length} bytes; at most {self._max_bytes} are taken")
            end = start + _LENGTH.size + length
            if len(data) < end:
                break
            if length:
                datagrams.append(data[start + _LENGTH.size : end])
            start = end
        self._rest = data[start:]
        return datagrams
