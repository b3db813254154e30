"""Connections that find the master themselves: the one that Sentinels name, or the node of Mien's slot in a Cluster.

A connection asks where to go each time it is opened, and its pool asks every second. When the answer changes, the
connections to the old master end. A server that answers that it is not the master any more loses its connection at
once, and the call is tried again on a new one.

All keys of Mien are in one slot (`keys.py`), so in a Cluster one node has all of them, and an ordinary client with such
connections is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ConnectionError, MovedError, ReadOnlyError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from mien_shared.bus import keys
from mien_shared.bus.address import Node, RedisAddress, Topology

logger = logging.getLogger(__name__)

#: How long one Sentinel or node may take to answer before the next one is asked.
_ASK_TIMEOUT_S = 1.0
REFRESH_INTERVAL_S = 1.0

_SLOT = key_slot(keys.SESSIONS.encode())


class RedisMisconfigured(ConnectionError):  # type: ignore[misc]
    """REDIS_URL leads to a server that is not of the kind that it says."""


class NoMasterAnswer(ConnectionError):  # type: ignore[misc]
    """No Sentinel, or no node of the Cluster, said where the master is."""


class Locator:
    """Knows where the master is, by asking the nodes of REDIS_URL in turn. The one that answered is asked first."""

    def __init__(self, address: RedisAddress) -> None:
        self.topology = address.topology
        self._address = address
        self._nodes = list(address.nodes)
        #: Where the master was at the last answer.
        self.last: Node | None = None

    async def master(self) -> Node:
        """Where the master is now. Raises RedisMisconfigured, NoMasterAnswer."""
        errors: list[Exception] = []
        for node in tuple(self._nodes):
            try:
                self.last = await self._ask(node)
            except (RedisError, OSError, TimeoutError) as error:
                errors.append(error)
                continue
            self._nodes.sort(key=lambda one: one != node)  # stable: the others keep their order
            return self.last
        wrong = [error for error in errors if isinstance(error, RedisMisconfigured)]
        if len(wrong) == len(errors):
            raise wrong[0]
        raise NoMasterAnswer("; ".join(str(error) or type(error).__name__ for error in errors))

    def doubt(self, master: Node) -> None:
        """The server at `master` is not the master: ask another node first, if it was one that said so."""
        if self.last == master:
            self.last = None
            self._nodes.append(self._nodes.pop(0))

    async def _ask(self, node: Node) -> Node:
        pool = ConnectionPool(
            SSLConnection if self._address.uses_tls else Connection,
            host=node.host,
            port=node.port,
            socket_timeout=_ASK_TIMEOUT_S,
            socket_connect_timeout=_ASK_TIMEOUT_S,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **self._address.asking,
        )
        async with Redis.from_pool(pool) as client:
            client.response_callbacks.clear()
            if self.topology is Topology.SENTINEL:
                return await self._ask_sentinel(client, node)
            return await self._ask_cluster(client, node)

    async def _ask_sentinel(self, client: Redis, node: Node) -> Node:
        name = self._address.master_name
        try:
            answer = await client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", name)
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise RedisMisconfigured(f"{node} in REDIS_URL is not a Sentinel") from None
            raise
        if answer is None:
            raise RedisMisconfigured(f"the Sentinel {node} knows no master {name!r}")
        return Node(answer[0].decode(), int(answer[1]))

    async def _ask_cluster(self, client: Redis, node: Node) -> Node:
        try:
            ranges = await client.execute_command("CLUSTER SLOTS")
        except ResponseError as error:
            if "cluster support disabled" in str(error):
                text = f"{node} in REDIS_URL is not a node of a Cluster: write redis:// or rediss://"
                raise RedisMisconfigured(text) from None
            raise
        owner, others = owner_of(ranges, _SLOT, node)
        if owner is None:
            raise NoMasterAnswer(f"by {node} no node has slot {_SLOT}")
        self._nodes = list(dict.fromkeys([node, *self._address.nodes, *others]))
        return owner


def owner_of(ranges: Iterable[Sequence[Any]], slot: int, asked: Node) -> tuple[Node | None, list[Node]]:
    """The master of a slot, and all nodes, from an answer to CLUSTER SLOTS.

    ranges: first slot, last slot, master, replicas; a node begins with its address (empty: the one that was asked; "?":
    unknown) and its port. https://valkey.io/commands/cluster-slots/
    """
    owner, nodes = None, []
    for first, last, *members in ranges:
        found = [Node((member[0] or b"").decode() or asked.host, int(member[1])) for member in members]
        known = [node for node in found if node.host != "?"]
        nodes += known
        if first <= slot <= last and known and known[0] is found[0]:
            owner = known[0]
    return owner, nodes


class _ToTheMaster(Connection):  # type: ignore[misc]
    """A connection that asks its pool where to go, and leaves a server that is not the master any more."""

    def __init__(self, *, pool: MasterPool, **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool

    @property
    def node(self) -> Node:
        return Node(self.host, self.port)

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self.is_connected:
            node = await self._pool.locate()
            self.host, self.port = node.host, node.port
        await super().connect_check_health(check_health, retry_socket_connect)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_not_the_master(error):
                raise
            self._pool.locator.doubt(self.node)
            await self.disconnect(nowait=True)
            text = f"{self.node} answers as a server that is not the master: {type(error).__name__}, {error}"
            raise ConnectionError(text) from error

    def abort(self) -> None:
        """End the connection from another task than its user's: that one's call fails as if the server had ended it."""
        if self._writer is not None:
            self._writer.transport.abort()


class _ToTheMasterByTls(_ToTheMaster, SSLConnection):  # type: ignore[misc]
    pass


def _is_not_the_master(error: ResponseError) -> bool:
    """A replica, a node that lost the slot, or a master that the others may have replaced."""
    return isinstance(error, (ReadOnlyError, MovedError, ClusterDownError)) or str(error).startswith("NOREPLICAS")


class MasterPool(ConnectionPool):  # type: ignore[misc]
    """Connections to the master only."""

    def __init__(self, address: RedisAddress, **options: Any) -> None:
        self.locator = Locator(address)
        kind = _ToTheMasterByTls if address.uses_tls else _ToTheMaster
        super().__init__(kind, pool=self, **options)

    async def locate(self) -> Node:
        """Where the master is now. If it has moved, the connections to the old one end. Raises as Locator.master."""
        before, now = self.locator.last, await self.locator.master()
        if before is not None and before != now:
            logger.warning("the redis master has changed", extra={"master": str(now)})
            for connection in (*self._available_connections, *self._in_use_connections):
                if connection.node != now:
                    connection.abort()
        return now

    async def refresh(self) -> None:
        """One step of a loop: ask where the master is. Never raises: open connections work without Sentinels.

        Without this, services that need no new connection stay on an old master that still works. Sentinels make it a
        replica only ten seconds after a switch by hand, and a master without network never hears of its successor.
        """
        with suppress(RedisError, OSError, TimeoutError):
            await self.locate()

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect, anew if the master has changed since the connection was opened."""
        assert isinstance(connection, _ToTheMaster)
        if connection.is_connected and connection.node != self.locator.last:
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)
