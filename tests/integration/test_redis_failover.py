"""Clients of real Sentinels and of a real Cluster: they follow the master, and say what is wrong with a URL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis_groups import HOST, MASTER_NAME, Group, Member, cluster_group, sentinel_group
from tls_front import make_certificate, tls_fronts

from mien_client.launcher import free_port
from mien_shared.bus import keys, rights
from mien_shared.bus.address import Node
from mien_shared.bus.channels import GeneratorInbox, send_control
from mien_shared.bus.connection import BUS_ERRORS, open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.masters import MasterPool, RedisMisconfigured
from mien_shared.bus.messages import SessionRecord, SetBitrate
from mien_shared.bus.probe import RedisProbe
from mien_shared.bus.registry import Registry
from mien_shared.clock import SystemClock
from mien_shared.metrics import ServiceMetrics

pytestmark = [pytest.mark.integration, pytest.mark.long]

SESSION = SessionRecord(session_id="s1", avatar_id="a1", created_at_ms=1)
KEY = "{mien}:trial"


@pytest_asyncio.fixture
async def sentinels() -> AsyncIterator[Group]:
    async with sentinel_group() as group:
        yield group


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Group]:
    async with cluster_group() as group:
        yield group


def pool_of(redis: Redis) -> MasterPool:
    pool = redis.connection_pool
    assert isinstance(pool, MasterPool)
    return pool


def member_at(group: Group, node: Node | None) -> Member:
    assert node is not None
    return next(server for server in group.servers if server.port == node.port)


async def writes(redis: Redis, value: str, within_s: float = 15) -> float:
    """Write until a write succeeds. Returns the longest time that a call took, s."""
    longest_s = 0.0
    async with asyncio.timeout(within_s):
        while True:
            began_s = time.monotonic()
            try:
                await redis.set(KEY, value)
                return longest_s
            except BUS_ERRORS:
                longest_s = max(longest_s, time.monotonic() - began_s)
            await asyncio.sleep(0.02)


async def set_scripts_loaded(redis: Redis) -> None:
    assert await Registry(redis).keep_alive(SESSION)


async def test_sentinels_lose_their_master(sentinels: Group) -> None:
    async with open_redis(sentinels.url("admin")) as redis:
        await set_scripts_loaded(redis)
        old = member_at(sentinels, pool_of(redis).locator.last)
        await asyncio.gather(*(redis.set(KEY, 0) for _ in range(5)))  # several connections
        old.kill()
        with pytest.raises(BUS_ERRORS):
            await redis.get(KEY)
        assert await writes(redis, "after") < 1.0, "a call fails at once while there is no master"
        new = member_at(sentinels, pool_of(redis).locator.last)
        assert new is not old
        assert await Registry(redis).keep_alive(SESSION), "the new master does not know the scripts"
        old.start()
        async with asyncio.timeout(20):
            while await old.role() != "slave":
                await asyncio.sleep(0.1)
        assert await redis.get(KEY) == b"after"
        assert await new.call("GET", KEY) == b"after"


async def test_a_master_that_was_made_a_replica_is_left(sentinels: Group) -> None:
    """Its connections stay open, and it answers READONLY. Sentinels would close them, so they must not see it."""
    one, two = sentinels.servers
    async with open_redis(sentinels.url("admin")) as redis:
        await redis.set(KEY, "before")
        assert member_at(sentinels, pool_of(redis).locator.last) is one
        for sentinel in sentinels.sentinels:
            await sentinel.call("SENTINEL", "REMOVE", MASTER_NAME)
        await two.call("REPLICAOF", "NO", "ONE")
        await one.call("REPLICAOF", HOST, str(two.port))
        with pytest.raises(BUS_ERRORS):
            await redis.set(KEY, "nowhere")
        for sentinel in sentinels.sentinels:
            await sentinel.call("SENTINEL", "MONITOR", MASTER_NAME, HOST, str(two.port), "2")
        await redis.set(KEY, "after")
        assert member_at(sentinels, pool_of(redis).locator.last) is two


async def test_a_master_that_lost_its_replicas_is_asked_about(sentinels: Group) -> None:
    """min-replicas-to-write makes a master refuse writes when it is cut off. It may have a successor then."""
    one, two = sentinels.servers
    async with open_redis(sentinels.url("admin")) as redis:
        await redis.set(KEY, "before")
        await one.call("CONFIG", "SET", "min-replicas-to-write", "2")
        with pytest.raises(BUS_ERRORS, match="NOREPLICAS"):
            await redis.set(KEY, "nowhere")
        for sentinel in sentinels.sentinels:
            await sentinel.call("SENTINEL", "REMOVE", MASTER_NAME)
        await two.call("REPLICAOF", "NO", "ONE")
        for sentinel in sentinels.sentinels:
            await sentinel.call("SENTINEL", "MONITOR", MASTER_NAME, HOST, str(two.port), "2")
        await redis.set(KEY, "after")
        assert member_at(sentinels, pool_of(redis).locator.last) is two


async def test_a_call_in_progress_moves_with_the_master(cluster: Group) -> None:
    """The old master hangs. A call that waits for it ends when the new one is known, not after its socket's timeout."""
    async with open_redis(cluster.url("admin")) as redis:
        await redis.set(KEY, "before")
        old = member_at(cluster, pool_of(redis).locator.last)
        old.pause()
        waiting = asyncio.create_task(redis.get(KEY))
        began_s = time.monotonic()
        async with asyncio.timeout(10):
            while pool_of(redis).locator.last == Node(HOST, old.port):
                await asyncio.sleep(0.1)
                await pool_of(redis).refresh()
        moved_s = time.monotonic()
        assert await waiting == b"before", "the second try goes to the new master"
        assert time.monotonic() - moved_s < 1.0
        assert moved_s - began_s < 10
        old.resume()


async def test_a_cluster_loses_the_node_of_its_slot(cluster: Group) -> None:
    async with open_redis(cluster.url("admin")) as redis:
        await set_scripts_loaded(redis)
        old = member_at(cluster, pool_of(redis).locator.last)
        old.kill()
        assert await writes(redis, "after") < 2.5, "a node that hangs may be asked for a second"
        assert member_at(cluster, pool_of(redis).locator.last) is cluster.servers[cluster.servers.index(old) + 3]
        assert await Registry(redis).keep_alive(SESSION)


async def test_a_slot_that_moves_to_another_node_is_followed(cluster: Group) -> None:
    async with open_redis(cluster.url("admin")) as redis:
        await redis.set(KEY, "before")
        old = member_at(cluster, pool_of(redis).locator.last)
        await cluster.servers[cluster.servers.index(old) + 3].call("CLUSTER", "FAILOVER")
        async with asyncio.timeout(10):
            while await old.role() != "slave":
                await asyncio.sleep(0.02)
        await redis.set(KEY, "after")  # MOVED
        assert member_at(cluster, pool_of(redis).locator.last) is not old


@pytest.mark.parametrize("needed", rights.SERVICES, ids=lambda needed: needed.user)
async def test_each_service_is_ready_as_its_user(needed: rights.Rights) -> None:
    for make in (sentinel_group, cluster_group):
        async with make() as group, open_redis(group.url(needed.user)) as redis:
            probe = RedisProbe(redis, needed, SystemClock(), ServiceMetrics("trial"))
            await probe.step()
            assert (probe.why_away(), probe.why_unready()) == (None, None)
            assert await group.refusals() == []


@asynccontextmanager
async def lagging(group: Group) -> AsyncIterator[None]:
    """What is written inside the context does not reach the replica."""
    master, replica = group.servers
    password = str(replica.password)
    await replica.call("CONFIG", "SET", "masterauth", "wrong")
    await master.call("CLIENT", "KILL", "TYPE", "replica")
    yield
    master.kill()
    await replica.call("CONFIG", "SET", "masterauth", password)


@pytest.mark.parametrize("clock_is_behind", [False, True])
async def test_a_replica_that_is_behind_brings_no_message_twice_and_loses_no_new_one(
    sentinels: Group, clock_is_behind: bool
) -> None:
    async with open_redis(sentinels.url("admin")) as redis:
        inbox = GeneratorInbox(redis, "g")

        async def send(bitrate_bps: int) -> None:
            await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=bitrate_bps))

        async def received() -> list[int]:
            return [message.bitrate_bps for message in await inbox.read() if isinstance(message, SetBitrate)]

        for number in (1, 2, 3):
            await send(number)
        assert await received() == [1, 2, 3]
        await redis.persist(keys.control("g"))  # the failover may take longer than the stream lives
        async with asyncio.timeout(5):
            while await sentinels.servers[1].call("XLEN", keys.control("g")) != 3:
                await asyncio.sleep(0.02)
        async with lagging(sentinels):
            await asyncio.sleep(0.01)  # 4 has a later millisecond than 3
            await send(4)
            await send(5)
            await redis.persist(keys.control("g"))
            assert await received() == [4, 5]
        with pytest.raises(BUS_ERRORS):
            await inbox.read()
        await writes(redis, "after")
        newest_id, newest = (await redis.xrevrange(keys.control("g"), count=1))[0]
        assert newest == {b"m": SetBitrate(session_id="one", bitrate_bps=3).to_bytes()}, "the new master lacks 4 and 5"
        if clock_is_behind:  # so its next id is behind that of 5
            six = {b"m": SetBitrate(session_id="one", bitrate_bps=6).to_bytes()}
            await redis.xadd(keys.control("g"), six, id=newest_id.partition(b"-")[0] + b"-99")
            assert await received() == [6]
        else:
            reading = asyncio.create_task(received())
            await asyncio.sleep(0.3)  # it looks where to continue before there is anything new
            await send(6)
            assert await reading == [6]
        await send(7)
        assert await received() == [7]


async def test_a_url_that_leads_to_another_kind_of_server_is_told(
    sentinels: Group, redis_server: EmbeddedRedis, cluster: Group
) -> None:
    sentinel, server, node = sentinels.sentinels[0], sentinels.servers[0], cluster.servers[0]
    hosts = sentinels.url("gateway").partition("@")[2].partition("/")[0]
    cases = [
        (cluster.direct_url(node, "gateway"), "REDIS_URL leads to a node of a Redis Cluster: write redis+cluster://"),
        (f"redis://peer:of-peer@{HOST}:{sentinel.port}", "REDIS_URL leads to a Sentinel: write redis+sentinel://"),
        (sentinels.url("gateway", master_name="other"), f"the Sentinel {hosts.split(',')[0]} knows no master 'other'"),
        (
            f"redis+sentinel://{HOST}:{server.port}/m?sentinel_username=admin&sentinel_password={server.password}",
            f"{HOST}:{server.port} in REDIS_URL is not a Sentinel",
        ),
        (
            sentinels.direct_url(server, "gateway").replace("redis://", "redis+cluster://"),
            f"{HOST}:{server.port} in REDIS_URL is not a node of a Cluster",
        ),
    ]
    for url, text in cases:
        async with open_redis(url) as redis:
            probe = RedisProbe(redis, rights.GATEWAY, SystemClock(), ServiceMetrics("trial"))
            with suppress(RedisMisconfigured):
                await probe.step()
            assert str(probe.why_away()).startswith(text), url


async def test_sentinels_that_do_not_answer_are_named_without_passwords(sentinels: Group) -> None:
    for sentinel in sentinels.sentinels:
        sentinel.kill()
    async with open_redis(sentinels.url("gateway")) as redis:
        with pytest.raises(BUS_ERRORS) as refused:
            await redis.get(KEY)
    for sentinel in sentinels.sentinels:
        assert str(sentinel.port) in str(refused.value)
    assert "of-asker" not in str(refused.value)


async def test_a_wrong_login_at_the_sentinels_is_told(sentinels: Group) -> None:
    url = sentinels.url("gateway").replace("of-asker", "of-another")
    async with open_redis(url) as redis:
        with pytest.raises(BUS_ERRORS, match="invalid username-password pair"):
            await redis.get(KEY)


async def test_open_connections_work_without_sentinels(sentinels: Group) -> None:
    async with open_redis(sentinels.url("admin")) as redis:
        await redis.set(KEY, 1)
        for sentinel in sentinels.sentinels:
            sentinel.kill()
        await pool_of(redis).refresh()
        await redis.set(KEY, 2)


async def test_tls_to_sentinels_and_servers(sentinels: Group) -> None:
    certificate = make_certificate(sentinels.folder)
    # A port in front of each Sentinel and of the master. The Sentinels then monitor the master by its front.
    fronts = {free_port(): member.port for member in (*sentinels.sentinels, sentinels.servers[0])}
    async with tls_fronts(fronts, certificate) as listening:
        *asked, front = fronts
        for sentinel in sentinels.sentinels:
            await sentinel.call("SENTINEL", "REMOVE", MASTER_NAME)
            await sentinel.call("SENTINEL", "MONITOR", MASTER_NAME, HOST, str(front), "2")
        url = sentinels.url("gateway", scheme="rediss")
        for member, port in zip(sentinels.sentinels, asked, strict=True):
            url = url.replace(f":{member.port}", f":{port}")
        with pytest.raises(BUS_ERRORS, match="certificate verify failed"):
            async with open_redis(url) as stranger:
                await stranger.exists(keys.record("s1"))
        before = [one.tls_connections for one in listening]
        async with open_redis(f"{url}ssl_ca_certs={certificate}") as redis:
            assert await redis.exists(keys.record("s1")) == 0
        more = [one.tls_connections - earlier for one, earlier in zip(listening, before, strict=True)]
        assert more[0] > 0, "the first Sentinel is asked by TLS"
        assert more[-1] > 0, "the master is used by TLS"
