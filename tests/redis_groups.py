"""Real groups of Redis servers that fail over: a master and a replica with three Sentinels, and a Cluster.

All servers have the users of deploy/redis/users. The Sentinels have two users of their own: one for Mien, which may
only ask where the master is, and one for each other. Everything listens on loopback, on free ports.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limited_redis import password_of, prepare_users
from redis.asyncio import Redis
from redis.exceptions import RedisError

from mien_client.launcher import free_port
from mien_shared.bus.embedded_redis import server_binary

HOST = "127.0.0.1"
MASTER_NAME = "mien-master"
_SENTINEL_USER, _SENTINEL_PASSWORD = "asker", "of-asker"
_FORMED_TIMEOUT_S = 30.0


@dataclass
class Member:
    """One process: a server or a Sentinel. It may be killed, paused, and started again with what it has on disk."""

    folder: Path
    arguments: Sequence[str]
    port: int
    user: str
    password: str
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            command = [str(server_binary()), *self.arguments]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def call(self, *command: str) -> Any:
        """Send one command as the administrator. Answers of commands are raw."""
        async with Redis(
            host=HOST, port=self.port, username=self.user, password=self.password, socket_timeout=5, driver_info=None
        ) as client:
            client.response_callbacks.clear()
            return await client.execute_command(*command)

    async def role(self) -> str:
        """master or slave; "away" if it does not answer."""
        try:
            answer: list[bytes] = await self.call("ROLE")
        except (RedisError, OSError):
            return "away"
        return answer[0].decode()


@dataclass
class Group:
    """Servers, of which one has Mien's keys, and the Sentinels, if there are any."""

    folder: Path
    servers: list[Member]
    sentinels: list[Member]

    def url(self, user: str, scheme: str = "redis", master_name: str = MASTER_NAME, options: str = "") -> str:
        """REDIS_URL for one of the users."""
        login = f"{user}:{password_of(self.folder, user)}"
        if not self.sentinels:
            return f"{scheme}+cluster://{login}@{_hosts(self.servers)}?{options}"
        own = f"sentinel_username={_SENTINEL_USER}&sentinel_password={_SENTINEL_PASSWORD}"
        return f"{scheme}+sentinel://{login}@{_hosts(self.sentinels)}/{master_name}?{own}&{options}"

    def direct_url(self, member: Member, user: str) -> str:
        """A plain URL of one server."""
        return f"redis://{user}:{password_of(self.folder, user)}@{HOST}:{member.port}"

    def environments(self, generators: int = 1) -> dict[str, dict[str, str]]:
        """What each service needs to connect as its own user."""
        more = [f"generator-{number}" for number in range(2, generators + 1)]
        names = ["gateway", "signaling", "generator", *more]
        return {name: {"REDIS_URL": self.url(name.partition("-")[0])} for name in names}

    async def refusals(self) -> list[str]:
        """What the servers that answer refused to users."""
        found = []
        for server in self.servers:
            if await server.role() != "away":
                found += [str(entry) for entry in await server.call("ACL", "LOG")]
        return found


def _hosts(members: Sequence[Member]) -> str:
    return ",".join(f"{HOST}:{member.port}" for member in members)


@asynccontextmanager
async def _running(folder: Path, members: Sequence[Member]) -> AsyncIterator[None]:
    try:
        for member in members:
            member.start()
        yield
    except BaseException:
        for member in members:
            print(f"--- {member.folder.name} (port {member.port})\n{(member.folder / 'log').read_text()[-3000:]}")
        raise
    finally:
        for member in members:
            member.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _server(folder: Path, name: str, users: Path, more: Sequence[str] = (), port: int | None = None) -> Member:
    port, password = port or free_port(), password_of(folder, "admin")
    arguments = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--aclfile", str(users)]
    arguments += ["--masteruser", "admin", "--masterauth", password, "--repl-diskless-sync-delay", "0", *more]
    return Member(folder / name, arguments, port, "admin", password)


@asynccontextmanager
async def sentinel_group() -> AsyncIterator[Group]:
    """A master, servers[0], with one replica and three Sentinels: quorum 2, a server is down after one second."""
    folder = Path(tempfile.mkdtemp(prefix="mien-", dir="/tmp"))
    users = prepare_users(folder)
    master = _server(folder, "one", users)
    replica = _server(folder, "two", users, ["--replicaof", f"{HOST} {master.port}"])
    sentinels = [_sentinel(folder, f"sentinel-{number}", master) for number in (1, 2, 3)]
    async with _running(folder, [master, replica, *sentinels]):
        async with asyncio.timeout(_FORMED_TIMEOUT_S):
            while not all([await _sees_all(sentinel) for sentinel in sentinels]):
                await asyncio.sleep(0.1)
        yield Group(folder, [master, replica], sentinels)


def _sentinel(folder: Path, name: str, master: Member) -> Member:
    port = free_port()
    (folder / name).mkdir()
    config = folder / name / "sentinel.conf"
    config.write_text(
        f"""port {port}
bind {HOST}
sentinel monitor {MASTER_NAME} {HOST} {master.port} 2
sentinel down-after-milliseconds {MASTER_NAME} 1000
sentinel failover-timeout {MASTER_NAME} 5000
sentinel auth-user {MASTER_NAME} {master.user}
sentinel auth-pass {MASTER_NAME} {master.password}
sentinel sentinel-user peer
sentinel sentinel-pass of-peer
user default off
user peer on >of-peer ~* &* +@all
user {_SENTINEL_USER} on >{_SENTINEL_PASSWORD} -@all +sentinel|get-master-addr-by-name
"""
    )
    return Member(folder / name, [str(config), "--sentinel"], port, "peer", "of-peer")


async def _sees_all(sentinel: Member) -> bool:
    try:
        answer = await sentinel.call("SENTINEL", "MASTER", MASTER_NAME)
        replicas = await sentinel.call("SENTINEL", "REPLICAS", MASTER_NAME)
    except (RedisError, OSError):
        return False
    seen = _map(answer)
    linked = [_map(replica).get("master-link-status") == "ok" for replica in replicas]
    return seen["num-other-sentinels"] == "2" and linked == [True]


def _map(answer: Any) -> dict[str, str]:
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


@asynccontextmanager
async def cluster_group() -> AsyncIterator[Group]:
    """Three masters, servers[:3], with a replica each: servers[3:] in the same order."""
    folder = Path(tempfile.mkdtemp(prefix="mien-", dir="/tmp"))
    users = prepare_users(folder)
    more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]
    servers = []
    for number in range(6):
        port = ["--cluster-port", str(free_port())]  # the usual one, 10,000 above the other, may be too high
        servers.append(_server(folder, f"node-{number}", users, [*more, *port]))
    async with _running(folder, servers), asyncio.timeout(None) as limit:
        limit.reschedule(asyncio.get_running_loop().time() + _FORMED_TIMEOUT_S)
        await _form_cluster(servers)
        limit.reschedule(None)
        yield Group(folder, servers, [])


async def _form_cluster(servers: Sequence[Member]) -> None:
    for server in servers:
        while await server.role() == "away":
            await asyncio.sleep(0.05)
    for number, (first, last) in enumerate([(0, 5460), (5461, 10922), (10923, 16383)]):
        await servers[number].call("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
    for number, server in enumerate(servers):
        await server.call("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
    for server in servers[1:]:
        cluster_port = server.arguments[-1]
        await servers[0].call("CLUSTER", "MEET", HOST, str(server.port), cluster_port)
    for server in servers:
        while "cluster_known_nodes:6" not in (await server.call("CLUSTER", "INFO")).decode():
            await asyncio.sleep(0.05)
    for master, replica in zip(servers[:3], servers[3:], strict=True):
        name = (await master.call("CLUSTER", "MYID")).decode()
        while True:
            try:
                await replica.call("CLUSTER", "REPLICATE", name)
                break
            except RedisError:  # the replica has not heard of its master yet
                await asyncio.sleep(0.05)
    for server in servers:
        while "cluster_state:ok" not in (await server.call("CLUSTER", "INFO")).decode():
            await asyncio.sleep(0.05)
    for replica in servers[3:]:
        while (await replica.call("ROLE"))[3] != b"connected":
            await asyncio.sleep(0.05)
