"""What REDIS_URL says: one server, the Sentinels of a master, or the nodes of a Cluster. It is parsed without I/O.

    redis://, rediss://, unix://                        as redis-py takes them
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,...]/MASTER[/DB][?sentinel_username=...&sentinel_password=...]
    redis+cluster://[USER:PASSWORD@]HOST[:PORT][,...]

rediss+sentinel:// and rediss+cluster:// use TLS for every connection. The query may have redis-py's options of a
connection. These are the forms of LangChain, Prefect and redis-sentinel-url; redis-py itself has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?", re.IGNORECASE)
_NODE = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@\s]+))(:(?P<port>\d{1,5}))?")
_SENTINEL_PORT, _REDIS_PORT = 26379, 6379
_ENCODED = "write / ? # @ [ ] in user and password as %2F %3F %23 %40 %5B %5D"
_OWN_OPTIONS = ("sentinel_username", "sentinel_password")


class RedisUrlError(ValueError):
    """REDIS_URL is malformed. The text never quotes the URL, which may hold a password."""


class Topology(StrEnum):
    """What answers at the hosts of the URL."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": (Topology.SERVER, Connection),
    "rediss": (Topology.SERVER, SSLConnection),
    "unix": (Topology.SERVER, UnixDomainSocketConnection),
    "redis+sentinel": (Topology.SENTINEL, Connection),
    "rediss+sentinel": (Topology.SENTINEL, SSLConnection),
    "redis+cluster": (Topology.CLUSTER, Connection),
    "rediss+cluster": (Topology.CLUSTER, SSLConnection),
}


@dataclass(frozen=True, slots=True)
class Node:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed REDIS_URL.

    nodes: the Sentinels, or some nodes of the Cluster; empty for a single server. master_name: the name by which the
    Sentinels know the master. options: redis-py's arguments of a connection to Redis, credentials included.
    asking: those of a connection to `nodes`.
    """

    topology: Topology
    uses_tls: bool
    nodes: tuple[Node, ...]
    master_name: str
    options: Mapping[str, Any] = field(repr=False)
    asking: Mapping[str, Any] = field(repr=False)


def parse_address(url: str) -> RedisAddress:
    """Parse REDIS_URL. Raises RedisUrlError."""
    found = _URL.fullmatch(url)
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in _SCHEMES:
        raise RedisUrlError(f"must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    if found is None:
        raise RedisUrlError(f"has a character in the wrong place: {_ENCODED}")
    topology, connection = _SCHEMES[scheme]
    uses_tls = connection is SSLConnection
    if topology is Topology.SERVER:
        return RedisAddress(topology, uses_tls, (), "", _options(url, connection), {})
    credentials, _, hosts = found["authority"].rpartition("@")
    path, query = (unquote(found["path"] or "")).strip("/"), dict(parse_qsl(found["query"] or ""))
    plain = f"{'rediss' if uses_tls else 'redis'}://{credentials}{'@' if credentials else ''}redis.invalid"
    foreign = urlencode({name: value for name, value in query.items() if name not in _OWN_OPTIONS})
    if topology is Topology.CLUSTER:
        if path not in {"", "0"} or query.get("db", "0") != "0":
            raise RedisUrlError("names a database, but a Cluster has only one: leave out what follows the hosts")
        options = _options(f"{plain}?{foreign}", connection)
        logins = {name: value for name, value in options.items() if name in {"username", "password"}}
        return RedisAddress(topology, uses_tls, _nodes(hosts, _REDIS_PORT), "", options, _tls(options) | logins)
    master_name, _, database = path.partition("/")
    nodes = _nodes(hosts, _SENTINEL_PORT)
    if not master_name:
        raise RedisUrlError("does not name the master: write redis+sentinel://HOST:PORT,HOST:PORT/MASTER")
    if not re.fullmatch(r"\d*", database):
        raise RedisUrlError("has a database that is not a number: write redis+sentinel://HOST:PORT/MASTER/DATABASE")
    options = _options(f"{plain}/{database}?{foreign}", connection)
    logins = {name.removeprefix("sentinel_"): query[name] for name in _OWN_OPTIONS if name in query}
    return RedisAddress(topology, uses_tls, nodes, master_name, options, _tls(options) | logins)


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith("ssl_")}


def _nodes(hosts: str, default_port: int) -> tuple[Node, ...]:
    nodes = []
    for number, text in enumerate(hosts.split(","), 1):
        found = _NODE.fullmatch(text.strip())
        if not text.strip():
            raise RedisUrlError("names no host" if hosts == "" else f"has an empty host at place {number}")
        if found is None or not 0 < int(found["port"] or default_port) < 65536:
            raise RedisUrlError(f"has a host at place {number} that is neither HOST, HOST:PORT nor [IPV6]:PORT")
        nodes.append(Node(found["v6"] or unquote(found["name"]), int(found["port"] or default_port)))
    return tuple(nodes)


def _options(url: str, connection: type[Any]) -> dict[str, Any]:
    """What redis-py reads from a URL of a single server, without the place where it would connect to."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        if found := re.fullmatch(r"Invalid value for '(\w+)' in connection URL\.", str(error)):
            raise RedisUrlError(f"has a wrong value for {found[1]}") from None
        # The error may quote a part of a password.
        raise RedisUrlError(f"has no valid host and port: {_ENCODED}") from None
    for name in ("connection_class", "host", "port", "path"):
        options.pop(name, None)
    try:
        ConnectionPool(connection_class=connection, **options).make_connection()
    except (TypeError, ValueError, RedisError) as error:
        option = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        raise RedisUrlError(f"has an unknown option, {option[1]}" if option else "has a wrong option") from None
    return options
