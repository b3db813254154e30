"""All viewers at one port: real viewers over UDP and TCP, and what strangers can do there."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass

import pytest
from integration.media_ports import (
    bridge_to,
    candidates,
    check,
    credentials,
    free_port,
    host_address,
    moving_nat,
    only_by,
)
from integration.test_signaling_media import (
    HEIGHT,
    SESSION,
    WIDTH,
    Publisher,
    RunApp,
    World,
    eventually,
    eventually_async,
    settings,
    world_of,
)
from integration.test_signaling_whep import SECRET, StunServer

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.settings import IceServer
from mien_signaling.app import create_app
from mien_signaling.framing import MAX_DATAGRAM_BYTES, framed
from mien_signaling.media_port import MediaPort, MediaPortUnavailable
from mien_signaling.media_tcp import MAX_PER_VIEWER, MAX_UNKNOWN
from mien_signaling.metrics import SignalingMetrics

pytestmark = pytest.mark.integration

OTHER = SessionRecord(session_id="other", avatar_id="nobody", created_at_ms=0)
MEDIA = ("udp", "tcp")


@dataclass
class Place:
    """Signaling with a media port."""

    world: World
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return host_address(), self.port

    async def dropped(self, reason: str) -> float:
        return await self.world.metric(f'mien_media_port_dropped_total{{reason="{reason}"}}')

    async def ended(self, reason: str) -> float:
        return await self.world.metric(f'mien_media_tcp_ended_total{{reason="{reason}"}}')

    async def connected(self, transport: str) -> float:
        return await self.world.metric(f'mien_viewers_connected_total{{transport="{transport}"}}')

    async def tcp(self, state: str) -> float:
        return await self.world.metric(f'mien_media_tcp_connections{{state="{state}"}}')


@pytest.fixture
async def place(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[Place]:
    port = free_port()
    async with world_of(redis_server, run_app, media_port=port) as world:
        yield Place(world, port)


async def test_the_answer_offers_the_port_over_udp_and_then_over_tcp(place: Place) -> None:
    watcher = await place.world.watcher()
    offered = candidates(watcher.answer)
    assert {port for _, _, port in offered} == {place.port}
    addresses = [address for transport, address, _ in offered if transport == "udp"]
    assert host_address() in addresses
    assert offered == [(transport, address, place.port) for transport in MEDIA for address in addresses]
    lines = [line for line in watcher.answer.splitlines() if line.startswith("a=candidate:")]
    assert all(line.endswith("tcptype passive") == (" tcp " in line) for line in lines)
    priorities = {
        transport: {int(line.split()[3]) for line in lines if f" {transport} " in line} for transport in MEDIA
    }
    assert max(priorities["tcp"]) < min(priorities["udp"])
    assert len(credentials(watcher.answer)[0]) == 16


async def test_twenty_viewers_of_two_sessions_each_see_their_own(
    redis_server: EmbeddedRedis, run_app: RunApp, place: Place
) -> None:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        await stack.enter_async_context(Publisher(redis, session=OTHER, width=192).live())
        sessions = [SESSION.session_id, OTHER.session_id] * 10
        watchers = await asyncio.gather(*(place.world.watcher(session_id) for session_id in sessions))
        await asyncio.gather(*(watcher.see(5) for watcher in watchers))
        for watcher, session_id in zip(watchers, sessions, strict=True):
            assert watcher.size == ({SESSION.session_id: WIDTH, OTHER.session_id: 192}[session_id], HEIGHT)
            assert {port for _, _, port in candidates(watcher.answer)} == {place.port}
    assert await place.connected("udp") == 20
    await asyncio.gather(*(watcher.close() for watcher in watchers))
    await eventually_async(lambda: no_viewers(place))


async def no_viewers(place: Place) -> bool:
    states = ("connecting", "connected")
    return not any([await place.world.metric(f'mien_viewers{{state="{state}"}}') for state in states])


async def test_a_viewer_with_tcp_alone_sees_the_stream(place: Place) -> None:
    async with bridge_to(place.address) as bridge:
        watcher = await place.world.watcher(route=only_by(bridge))
        await watcher.see(30)
        assert bridge.carried > 30
        assert await place.connected("tcp") == 1
        assert await place.connected("udp") == 0
        assert await place.tcp("viewer") == 1
        await watcher.close()
        await eventually_async(lambda: none_open(place))
    assert await place.ended("left") + await place.ended("closed") == 1


async def none_open(place: Place) -> bool:
    return not await place.tcp("viewer") and not await place.tcp("unknown")


async def test_a_viewer_that_does_not_read_its_tcp_connection_gets_the_newest_later(place: Place) -> None:
    other = await place.world.watcher()
    async with bridge_to(place.address) as bridge:
        watcher = await place.world.watcher(route=only_by(bridge))
        await watcher.see(5)
        bridge.reads.clear()
        await eventually_async(lambda: at_least(place, "slow_tcp", 10))
        await other.see(10)
        bridge.reads.set()
        await watcher.see(10)


async def at_least(place: Place, reason: str, count: int) -> bool:
    return await place.dropped(reason) >= count


async def test_a_viewer_moves_to_another_address(place: Place) -> None:
    async with moving_nat(place.address) as nat:
        watcher = await place.world.watcher(route=only_by(nat))
        await watcher.see(5)
        local, remote = credentials(watcher.answer), credentials(watcher.peer.localDescription.sdp)
        nat.move(check(*local, remote[0], nominates=True))
        await eventually(lambda: nat.carried_since_move > 0)
        await watcher.see(20)


async def test_strangers_over_udp_are_dropped_by_name_and_change_nothing(place: Place) -> None:
    watcher = await place.world.watcher()
    await watcher.see(5)
    ufrag, password = credentials(watcher.answer)
    wrong = {
        "unknown_ufrag": check("a" * 16, password),
        "unauthenticated": check(ufrag, "x" * 22),
        "malformed": b"\x00\x01" + bytes(40),
        "unknown_address": b"\x80" + bytes(40),
        "oversized": b"\x80" + bytes(MAX_DATAGRAM_BYTES),
        "unknown_transaction": bytes([1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]) + bytes(12),
    }
    before = {reason: await place.dropped(reason) for reason in wrong}
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.setblocking(False)
        for datagram in wrong.values():
            for _ in range(200):
                stranger.sendto(datagram, place.address)
                await asyncio.sleep(0)
        for reason in wrong:
            assert await place.dropped(reason) >= before[reason] + 100, reason
        with pytest.raises(BlockingIOError):  # nothing is answered, so nothing can be reflected to a forged address
            stranger.recv(2048)
    await watcher.see(20)


async def test_strangers_over_tcp_are_closed_by_name_and_change_nothing(place: Place) -> None:
    async with bridge_to(place.address) as bridge:
        watcher = await place.world.watcher(route=only_by(bridge))
        await watcher.see(5)
        ufrag, password = credentials(watcher.answer)
        for data, end in (
            (framed(check("a" * 16, password)), "refused"),
            (framed(check(ufrag, "x" * 22)), "refused"),
            (framed(b"\x80" + bytes(40)), "refused"),
            (b"GET / HTTP/1.1\r\nHost: mien.example\r\n\r\n", "frame_too_long"),
            ((MAX_DATAGRAM_BYTES + 1).to_bytes(2, "big"), "frame_too_long"),
        ):
            before = await place.ended(end)
            reader, writer = await asyncio.open_connection(*place.address)
            writer.write(data)
            assert await ends(reader)
            writer.close()
            assert await place.ended(end) == before + 1
        await watcher.see(10)


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection without having sent anything."""
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_silent_connections_are_closed_and_cannot_keep_a_viewer_out(place: Place) -> None:
    silent = [await asyncio.open_connection(*place.address) for _ in range(MAX_UNKNOWN + 10)]
    try:
        await eventually_async(lambda: evicted(place, 10))
        assert await place.tcp("unknown") <= MAX_UNKNOWN
        async with bridge_to(place.address) as bridge:
            watcher = await place.world.watcher(route=only_by(bridge))
            await watcher.see(5)
            for reader, _ in silent:
                assert await ends(reader)  # also those that were the newest: after the time limit
            await watcher.see(5)
        assert await place.ended("silent") >= MAX_UNKNOWN / 2
    finally:
        for _, writer in silent:
            writer.close()


async def evicted(place: Place, count: int) -> bool:
    return await place.ended("too_many") >= count


async def test_one_viewer_has_a_few_connections_at_most(place: Place) -> None:
    async with bridge_to(place.address) as bridge:
        watcher = await place.world.watcher(route=only_by(bridge))
        await watcher.see(5)
        request = framed(check(*credentials(watcher.answer), credentials(watcher.peer.localDescription.sdp)[0]))
        writers = []
        for _ in range(3 * MAX_PER_VIEWER):
            _, writer = await asyncio.open_connection(*place.address)
            writer.write(request)
            writers.append(writer)
            await watcher.see(1)
        await eventually_async(lambda: evicted(place, MAX_PER_VIEWER))
        assert await place.tcp("viewer") <= MAX_PER_VIEWER
        await watcher.see(20)  # the connection with the media is never the one that is unused for longest
        for writer in writers:
            writer.close()


async def test_a_viewer_that_leaves_frees_its_place(place: Place) -> None:
    watcher = await place.world.watcher()
    await watcher.see(5)
    ufrag, password = credentials(watcher.answer)
    assert (await place.world.client.delete(watcher.url)).status_code == 200
    before = await place.dropped("unknown_ufrag")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as late:
        late.sendto(check(ufrag, password), place.address)
    await eventually_async(lambda: at_least(place, "unknown_ufrag", int(before) + 1))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_ends_the_start_by_name(redis_server: EmbeddedRedis, kind: socket.SocketKind) -> None:
    port = free_port()
    with closing(socket.socket(socket.AF_INET, kind)) as taken:
        taken.bind((host_address(), port))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(MediaPortUnavailable) as refused:
            create_app(settings(redis_server, media_port=port))
    text = f"MIEN_MEDIA_PORT: port {port} cannot be opened for UDP and TCP at {host_address()}: Address already in use"
    assert str(refused.value) == text


async def test_the_public_address_is_announced_with_the_port(redis_server: EmbeddedRedis, run_app: RunApp) -> None:
    port = free_port()
    async with world_of(redis_server, run_app, media_port=port, public_ip=host_address()) as world:
        watcher = await world.watcher()
        assert candidates(watcher.answer) == [(transport, host_address(), port) for transport in MEDIA]
        await watcher.see(5)


async def test_a_stun_server_tells_the_address_of_the_port(redis_server: EmbeddedRedis, run_app: RunApp) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
    servers = [IceServer(urls=[f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"])]
    port = free_port()
    async with world_of(redis_server, run_app, media_port=port, ice_servers=servers) as world:
        watcher = await world.watcher()
        assert re.search(rf" {host_address()} {port} typ srflx raddr {host_address()} rport {port}", watcher.answer)
        await watcher.see(5)
    transport.close()


async def test_an_address_that_comes_later_is_opened_for_the_next_viewer() -> None:
    port = MediaPort(free_port(), [], 1, SignalingMetrics())
    await port.start()
    (place,) = await port.at([host_address()])
    assert await port.at([host_address(), "192.0.2.250"]) == [place]  # this machine does not have the last one
    _, writer = await asyncio.open_connection(place.address, place.number)
    writer.close()
    port.close()


def test_the_process_says_in_one_line_that_its_port_is_in_use(redis_server: EmbeddedRedis) -> None:
    port = free_port()
    environment = {**os.environ, "MIEN_MEDIA_PORT": str(port), "MIEN_TOKEN_SECRET": SECRET, "MIEN_PORT": "0"}
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind((host_address(), port))
        command = [sys.executable, "-m", "mien_signaling"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"signaling cannot start: MIEN_MEDIA_PORT: port {port} cannot be opened")
    assert len(ended.stderr.splitlines()) == 1


async def test_a_closed_port_ends_its_connections_and_can_be_opened_again_at_once() -> None:
    number, metrics = free_port(), SignalingMetrics()
    port = MediaPort(number, [host_address()], 1, metrics)
    await port.start()
    reader, writer = await asyncio.open_connection(host_address(), number)
    async with asyncio.timeout(20):
        while 'mien_media_tcp_connections{state="unknown"} 1.0' not in metrics.exposition().decode():
            await asyncio.sleep(0.01)
    port.close()
    port.close()
    assert await ends(reader)
    MediaPort(number, [host_address()], 1, metrics).close()
    writer.close()
