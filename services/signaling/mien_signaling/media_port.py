"""The one port of all viewers' media: a UDP socket and a TCP listener at each address of this host (decision 7)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from dataclasses import dataclass

from mien_signaling.media_tcp import SharedTcp
from mien_signaling.media_udp import SharedUdp, bound_socket
from mien_signaling.metrics import SignalingMetrics

logger = logging.getLogger(__name__)

_LISTEN_BACKLOG = 128


class MediaPortUnavailable(OSError):
    """The media port cannot be opened; the text says where and why."""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """The port at one address of this host."""

    address: str
    number: int
    udp: SharedUdp
    tcp: SharedTcp


class MediaPort:
    """Owns the sockets, from the constructor to `close`.

    number: the port, the same for UDP and TCP. addresses: of this host; the port must be free at all of them.
    most_tcp_connections: how many TCP connections may belong to viewers, at each address. Raises MediaPortUnavailable.
    """

    def __init__(
        self, number: int, addresses: Collection[str], most_tcp_connections: int, metrics: SignalingMetrics
    ) -> None:
        self._number = number
        self._most_tcp_connections = most_tcp_connections
        self._metrics = metrics
        self._ports: dict[str, LocalPort] = {}
        try:
            for address in addresses:
                self._bind(address)
        except OSError as error:
            self.close()
            raise MediaPortUnavailable(
                f"MIEN_MEDIA_PORT: port {number} cannot be opened for UDP and TCP at {address}: {error.strerror}"
            ) from error
        metrics.watch_media_tcp(
            lambda: sum(port.tcp.unknown for port in self._ports.values()),
            lambda: sum(port.tcp.known for port in self._ports.values()),
        )

    async def start(self) -> None:
        """Begin to receive. Call it once, in the loop of the service."""
        for port in self._ports.values():
            port.udp.start()
            await port.tcp.start()

    async def at(self, addresses: Collection[str]) -> list[LocalPort]:
        """The port at these addresses of the host. An address that the host got after the start is opened now."""
        for address in addresses:
            if address not in self._ports:
                try:
                    port = self._bind(address)
                except OSError as error:
                    logger.warning("the media port cannot be opened at a new address", extra={"error": str(error)})
                    continue
                port.udp.start()
                await port.tcp.start()
        return [self._ports[address] for address in addresses if address in self._ports]

    def close(self) -> None:
        """Close all sockets and connections. May be called more than once."""
        for port in self._ports.values():
            port.udp.close()
            port.tcp.close()

    def _bind(self, address: str) -> LocalPort:
        udp = bound_socket(address, self._number, socket.SOCK_DGRAM)
        try:
            tcp = bound_socket(address, self._number, socket.SOCK_STREAM)
            tcp.listen(_LISTEN_BACKLOG)  # bind alone does not notice every other listener
        except OSError:
            udp.close()
            raise
        port = LocalPort(
            address,
            self._number,
            SharedUdp(udp, self._metrics.media_dropped),
            SharedTcp(tcp, self._most_tcp_connections, self._metrics.media_dropped, self._metrics.media_tcp_ended),
        )
        self._ports[address] = port
        return port
