"""Lets aioice use the media port instead of opening sockets. All uses of aioice's private parts are here.

aioice 0.13 opens a UDP socket for each connection and local address in `Connection.get_component_candidates`, on a port
that the system chooses. `use_media_port` replaces the method on the instance. It gives the connection two agents for
each local address, one for UDP and one for TCP. An agent is a StunProtocol of aioice whose transport sends through the
shared socket.

aioice does not know TCP, and it does not need to. A check that arrives over TCP makes a peer-reflexive candidate with
the remote address of the TCP connection, paired with the agent that received the check. aioice checks and nominates
this pair like any other, and sends with that agent. The version is pinned below 0.14 (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import string
from collections.abc import Awaitable, Callable
from typing import Any

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, get_host_addresses, server_reflexive_candidate
from aiortc import RTCPeerConnection

from mien_signaling.media_paths import Address, Dropped, is_stun
from mien_signaling.media_port import LocalPort, MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.passthrough import HookPointMissing

#: Datagrams of a viewer that aiortc has not read yet. It reads them at once when DTLS has begun.
MAX_UNREAD = 512

#: aioice's user fragments have four characters. At one port they must be different, so ours are longer.
_UFRAG_CHARACTERS = 16

# RFC 6544, section 4.2: TCP has a lower type preference than UDP, here the one of browsers, and its local preference
# contains the direction; passive has 4.
_TCP_TYPE_PREFERENCE, _PASSIVE_PREFERENCE, _OTHER_PREFERENCE = 90, 4, 8191

_METHODS = {
    (Connection, "connect"): ["self"],
    (Connection, "query_consent"): ["self"],
    (Connection, "get_component_candidates"): ["self", "component", "addresses", "timeout"],
    (StunProtocol, "request"): ["self", "request", "addr", "integrity_key", "retransmissions"],
    (StunProtocol, "datagram_received"): ["self", "data", "addr"],
    (StunProtocol, "connection_made"): ["self", "transport"],
    (StunProtocol, "connection_lost"): ["self", "exc"],
}
_FIELDS = ("_closing", "_local_username", "_protocols", "_nominated", "_queue")

_Gather = Callable[..., Awaitable[list[Candidate]]]


def check_hook_points(connection: type = Connection) -> None:
    """Raise HookPointMissing unless aioice has every private part that this module uses."""
    for (owner, name), expected in _METHODS.items():
        method = getattr(connection if owner is Connection else owner, name, None)
        if method is None or list(inspect.signature(method).parameters) != expected:
            raise HookPointMissing(f"aioice's {owner.__name__} has no {name}({', '.join(expected)})")
    for name in _FIELDS:
        if name not in connection.__init__.__code__.co_names:  # type: ignore[misc]
            raise HookPointMissing(f"aioice's Connection has no field {name}")
    if "__slots__" in vars(connection):
        raise HookPointMissing("aioice's Connection does not let an instance replace its methods")


def host_addresses() -> list[str]:
    """The addresses of this host that aioice would use."""
    return list(get_host_addresses(use_ipv4=True, use_ipv6=True))


def end_consent_checks_with(peer: RTCPeerConnection) -> None:
    """Prevent endless consent checks of a connection that is closed just when ICE completes.

    In aioice 0.13, `connect` may wake up after `close` has finished. It then starts the consent task, which is never
    cancelled. Call this after setRemoteDescription, when all transports exist and none has started.
    """
    for connection in _connections_of(peer):
        connection.query_consent = _unless_closed(connection)


def use_media_port(peer: RTCPeerConnection, port: MediaPort, metrics: SignalingMetrics) -> None:
    """Let all viewers share the media port. Call this at the same time as `end_consent_checks_with`."""
    for connection in _connections_of(peer):
        characters = string.ascii_letters + string.digits
        connection._local_username = "".join(secrets.choice(characters) for _ in range(_UFRAG_CHARACTERS))
        connection.get_component_candidates = _gather_at(port, connection, metrics)


def leave_media_port(peer: RTCPeerConnection) -> None:
    """Give up the peer's places at the media port. Closing the peer does this too, unless it fails."""
    for connection in _connections_of(peer):
        for protocol in connection._protocols:
            if isinstance(protocol, _Agent):
                protocol.transport.close()


def transport_of(peer: RTCPeerConnection) -> str:
    """The transport of a connected peer's media at our end: "udp", or "tcp" at the media port."""
    pairs = [pair for connection in _connections_of(peer) for pair in connection._nominated.values()]
    return str(pairs[0].local_candidate.transport) if pairs else "udp"


def _connections_of(peer: RTCPeerConnection) -> list[Connection]:
    transports = {transceiver.receiver.transport.transport for transceiver in peer.getTransceivers()}
    if peer.sctp is not None:
        transports.add(peer.sctp.transport.transport)
    return [transport._connection for transport in transports]


def _unless_closed(connection: Connection) -> Callable[[], Awaitable[None]]:
    query_consent = connection.query_consent

    async def query() -> None:
        if not connection._closing:
            await query_consent()

    return query


def _gather_at(port: MediaPort, connection: Connection, metrics: SignalingMetrics) -> _Gather:
    """Replaces `get_component_candidates`. The candidates of TURN servers are still gathered by aioice."""
    gather_from_turn = connection.get_component_candidates

    async def gather(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        places = await port.at(addresses)
        if connection._closing:
            return []  # its agents would never be closed
        over_udp = [_UdpAgent(connection, component, place, metrics) for place in places]
        over_tcp = [_TcpAgent(connection, component, place, metrics) for place in places]
        connection._protocols += [*over_udp, *over_tcp]
        reflexive, relayed = await asyncio.gather(
            _reflexive(connection, over_udp, timeout), gather_from_turn(component, [], timeout)
        )
        return [*(agent.local_candidate for agent in (*over_udp, *over_tcp)), *reflexive, *relayed]

    return gather


async def _reflexive(connection: Connection, agents: list[_UdpAgent], timeout_s: int) -> list[Candidate]:
    """What a STUN server says of our IPv4 addresses, as aioice asks it. Empty without a STUN server."""
    if connection.stun_server is None:
        return []
    asked = [
        asyncio.create_task(server_reflexive_candidate(agent, connection.stun_server))
        for agent in agents
        if ":" not in agent.local_candidate.host
    ]
    if not asked:
        return []
    done, pending = await asyncio.wait(asked, timeout=timeout_s)
    for task in pending:
        task.cancel()
    candidates: list[Candidate] = [task.result()[0] for task in done if task.exception() is None]
    return candidates


class _Agent(StunProtocol):  # type: ignore[misc] # aioice is untyped for mypy here
    """A viewer's ICE agent at one socket of the media port (media_paths.Agent, media_udp.Receiver)."""

    def __init__(self, connection: Connection, metrics: SignalingMetrics) -> None:
        super().__init__(connection)
        self.ufrag: str = connection.local_username
        self.password: str = connection.local_password
        self._metrics = metrics

    @property
    def remote_password(self) -> str | None:
        password: str | None = self.receiver.remote_password
        return password

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        # aioice queues data without a limit, and it is read only when ICE has completed.
        if isinstance(data, bytes) and not is_stun(data) and self.receiver._queue.qsize() >= MAX_UNREAD:
            self._metrics.media_dropped(Dropped.UNREAD)
            return
        super().datagram_received(data, addr)


class _UdpAgent(_Agent):
    def __init__(self, connection: Connection, component: int, place: LocalPort, metrics: SignalingMetrics) -> None:
        super().__init__(connection, metrics)
        self._paths = place.udp.paths
        self.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", place.address),
            component=component,
            transport="udp",
            priority=candidate_priority(component, "host"),
            host=place.address,
            port=place.number,
            type="host",
        )
        self._paths.join(self)
        self.connection_made(_Transport(self, place.udp.send, self._paths.leave))

    async def request(
        self,
        request: stun.Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, Address]:
        """Tell the table whose answer will arrive."""
        self._paths.asked(self, request.transaction_id, addr)
        try:
            answer: tuple[stun.Message, Address] = await super().request(
                request, addr, integrity_key=integrity_key, retransmissions=retransmissions
            )
            return answer
        finally:
            self._paths.answered(request.transaction_id)


class _TcpAgent(_Agent):
    def __init__(self, connection: Connection, component: int, place: LocalPort, metrics: SignalingMetrics) -> None:
        super().__init__(connection, metrics)
        local_preference = (_PASSIVE_PREFERENCE << 13) + _OTHER_PREFERENCE
        self.local_candidate = Candidate(
            foundation=candidate_foundation("host", "tcp", place.address),
            component=component,
            transport="tcp",
            priority=(_TCP_TYPE_PREFERENCE << 24) + (local_preference << 8) + 256 - component,
            host=place.address,
            port=place.number,
            type="host",
            tcptype="passive",
        )
        place.tcp.join(self)
        self.connection_made(_Transport(self, lambda data, addr: place.tcp.send(self, data, addr), place.tcp.leave))


class _Transport(asyncio.DatagramTransport):
    """What an agent sends through. Closing it leaves the socket open for the others."""

    def __init__(self, agent: _Agent, send: Callable[[bytes, Address], None], leave: Callable[[Any], None]) -> None:
        super().__init__()
        self._agent = agent
        self._leave = leave
        self._is_closing = False
        self.sendto = send  # type: ignore[method-assign,assignment] # one call less for each packet

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._leave(self._agent)
            asyncio.get_running_loop().call_soon(self._agent.connection_lost, None)

    abort = close
