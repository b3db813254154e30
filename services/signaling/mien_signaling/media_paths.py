"""Whose datagram is it? The table behind a socket that many viewers share. Pure: no sockets, no time.

The table is filled only by STUN messages that the viewer has signed (RFC 8445, sections 7.2 and 7.3):

- A binding request names our user fragment in front of the colon of USERNAME, and MESSAGE-INTEGRITY is made with our
  password for that viewer. It takes its source address if the address is free.
- An answer has the transaction id of a request that we sent to that address, and it is made with the viewer's password.
  It takes its source address in any case. It proves that the viewer receives there. A forged source address cannot get
  such an answer, so a viewer cannot take another viewer's address from elsewhere.

All other datagrams go to the viewer that has their source address. If no viewer has it, they are dropped.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from aioice import stun

#: An IP address and a port.
Address = tuple[str, int]

#: The addresses from which one viewer may be heard in its life: its candidates (32), those that NATs make, and its
#: moves between networks. aioice keeps each of them, so their number must be limited.
MAX_ADDRESSES = 64

_LAST_STUN_BYTE = (
    3  # RFC 7983: the first byte of STUN is 0 to 3; DTLS begins with 20 to 63, RTP and RTCP with 128 to 191
)


class Dropped(StrEnum):
    """Why a datagram at the media port was dropped, in either direction."""

    UNKNOWN_ADDRESS = "unknown_address"
    UNKNOWN_UFRAG = "unknown_ufrag"
    UNKNOWN_TRANSACTION = "unknown_transaction"
    UNAUTHENTICATED = "unauthenticated"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    TOO_MANY_ADDRESSES = "too_many_addresses"
    UNREAD = "unread"  # the viewer's connection does not keep up with what it receives
    SEND_QUEUE_FULL = "send_queue_full"  # the kernel takes no more
    SEND_FAILED = "send_failed"
    SLOW_TCP = "slow_tcp"  # the viewer does not read its TCP connection
    CLOSED_TCP = "closed_tcp"


class Agent(Protocol):
    """A viewer's ICE agent at one socket, as far as this table knows it."""

    @property
    def ufrag(self) -> str:
        """Our user fragment for this viewer."""

    @property
    def password(self) -> str:
        """Our password for this viewer."""

    @property
    def remote_password(self) -> str | None:
        """The viewer's password, None until it is known."""


AgentType = TypeVar("AgentType", bound=Agent)


def is_stun(datagram: bytes) -> bool:
    return bool(datagram) and datagram[0] <= _LAST_STUN_BYTE


def read_stun(datagram: bytes) -> stun.Message | None:
    """The STUN message, None if it cannot be read."""
    try:
        return stun.parse_message(datagram)
    except (ValueError, struct.error):  # aioice raises the second for an attribute of a wrong length
        return None


class Agents(Generic[AgentType]):
    """The agents of a socket by their user fragment."""

    def __init__(self) -> None:
        self._by_ufrag: dict[str, AgentType] = {}

    def add(self, agent: AgentType) -> None:
        self._by_ufrag[agent.ufrag] = agent

    def discard(self, agent: AgentType) -> None:
        if self._by_ufrag.get(agent.ufrag) is agent:
            del self._by_ufrag[agent.ufrag]

    def __len__(self) -> int:
        return len(self._by_ufrag)

    def asked_by(self, request: stun.Message) -> AgentType | Dropped:
        """The agent that a binding request is for, if the request has the viewer's signature."""
        if request.message_class is not stun.Class.REQUEST or request.message_method is not stun.Method.BINDING:
            return Dropped.MALFORMED
        if "PRIORITY" not in request.attributes:  # aioice reads it without looking
            return Dropped.MALFORMED
        agent = self._by_ufrag.get(str(request.attributes.get("USERNAME", "")).partition(":")[0])
        if agent is None:
            return Dropped.UNKNOWN_UFRAG
        if not request.check_message_integrity(agent.password.encode()):
            return Dropped.UNAUTHENTICATED
        return agent


class Paths(Generic[AgentType]):
    """Which agent of a UDP socket has which remote address."""

    def __init__(self) -> None:
        self._agents: Agents[AgentType] = Agents()
        self._owners: dict[Address, AgentType] = {}
        self._seen: dict[AgentType, set[Address]] = {}
        self._asked: dict[bytes, tuple[AgentType, Address]] = {}

    def join(self, agent: AgentType) -> None:
        """From now on datagrams may be for this agent."""
        self._agents.add(agent)
        self._seen[agent] = set()

    def leave(self, agent: AgentType) -> None:
        """Forget an agent and all that belongs to it. May be called more than once."""
        self._agents.discard(agent)
        for address in self._seen.pop(agent, ()):
            if self._owners.get(address) is agent:
                del self._owners[address]
        for transaction_id in [key for key, (asking, _) in self._asked.items() if asking is agent]:
            del self._asked[transaction_id]

    def asked(self, agent: AgentType, transaction_id: bytes, address: Address) -> None:
        """The agent sends a request to this address and expects an answer until `answered`."""
        self._asked[transaction_id] = (agent, address)

    def answered(self, transaction_id: bytes) -> None:
        self._asked.pop(transaction_id, None)

    def __len__(self) -> int:
        """How many addresses have an owner."""
        return len(self._owners)

    def route(self, datagram: bytes, source: Address) -> AgentType | Dropped:
        """The agent that this datagram is for, or why there is none."""
        if not is_stun(datagram):
            return self._owners.get(source, Dropped.UNKNOWN_ADDRESS)
        message = read_stun(datagram)
        if message is None:
            return Dropped.MALFORMED
        if message.message_class is stun.Class.REQUEST:
            agent = self._agents.asked_by(message)
            return agent if isinstance(agent, Dropped) else self._taken(source, agent, is_proven=False)
        if message.message_class is stun.Class.INDICATION:
            return self._owners.get(source, Dropped.UNKNOWN_ADDRESS)
        return self._answer(message, source)

    def _answer(self, message: stun.Message, source: Address) -> AgentType | Dropped:
        if message.transaction_id not in self._asked:
            return Dropped.UNKNOWN_TRANSACTION
        agent, destination = self._asked[message.transaction_id]
        is_response = message.message_class is stun.Class.RESPONSE and source == destination
        password = agent.remote_password
        if is_response and password is not None and message.check_message_integrity(password.encode()):
            return self._taken(source, agent, is_proven=True)
        return agent  # an error, or the answer of a STUN server; it says nothing about the address

    def _taken(self, address: Address, agent: AgentType, *, is_proven: bool) -> AgentType | Dropped:
        seen = self._seen[agent]
        if address not in seen:
            if len(seen) >= MAX_ADDRESSES:
                return Dropped.TOO_MANY_ADDRESSES
            seen.add(address)
        if is_proven or address not in self._owners:
            self._owners[address] = agent
        return agent
