"""The uplink over real WebSockets: who gets in, what is passed on, what is counted, what closes it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
PACKETS = "mien_uplink_packets_total"


def packet(sequence: int) -> bytes:
    return MotionPacket(sequence, 33 * sequence, Keypoints.at_rest()).pack()


def uplink(gateway: Any, session_id: str, token: str | None, **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws{gateway.url.removeprefix('http')}/v1/sessions/{session_id}/uplink"
    return connect(url, additional_headers=headers, proxy=None, compression=None, **options)


async def refused(connecting: connect) -> tuple[int, str]:
    """The status and the problem's name that a handshake was refused with."""
    with pytest.raises(InvalidStatus) as caught:
        await connecting
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, (response.body or b"").decode().split("urn:mien:problem:")[1].split('"')[0]


async def closed(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(20):
            await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_packets_reach_the_generator_that_holds_the_session(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    before_us = int(time.time() * 1e6)
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        assert await gateway.metric("mien_uplinks") == 1
        for i in range(3):
            await socket.send(packet(i))
            await generator.gets(i + 1)
    assert [motion.packet for motion in generator.motion] == [packet(i) for i in range(3)]
    assert {motion.session_id for motion in generator.motion} == {created["session_id"]}
    assert all(before_us <= motion.received_unix_us <= time.time() * 1e6 for motion in generator.motion)
    await gateway.reaches(1, "mien_uplink_closed_total", code="1000")
    assert await gateway.metric("mien_uplinks") == 0
    assert await gateway.metric(PACKETS, result="accepted") == 3


async def test_a_browser_brings_its_token_as_a_subprotocol(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    offered = ["mien.v1", f"bearer.{created['token']}"]
    async with uplink(gateway, created["session_id"], None, subprotocols=offered) as socket:
        assert socket.subprotocol == "mien.v1"
        await socket.send(packet(0))
        await generator.gets(1)


async def test_who_may_not_publish_is_refused_before_the_handshake(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    session_id = created["session_id"]
    assert await refused(uplink(gateway, session_id, None)) == (401, "token-missing")
    assert await refused(uplink(gateway, session_id, "x.y.z")) == (401, "token-invalid")
    assert await refused(uplink(gateway, session_id, created["watch_token"])) == (403, "token-not-granted")
    assert await refused(uplink(gateway, "another", created["token"])) == (403, "token-not-granted")
    unknown = TokenIssuer(SECRET).issue("unknown", SPEAKER_GRANTS)
    assert await refused(uplink(gateway, "unknown", unknown)) == (404, "session-not-found")
    assert await gateway.metric("mien_uplinks") == 0


async def test_every_bad_packet_is_counted_by_its_reason_and_closes_nothing(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    nan, far = bytearray(packet(9)), bytearray(packet(9))
    nan[8:10], far[8:10] = b"\x00\x7e", b"\x00\x7b"
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        await socket.send(packet(5))
        for bad in (
            packet(6)[:-1],
            b"\x07" + packet(6)[1:],
            b"\x01\x80" + packet(6)[2:],
            bytes(nan),
            bytes(far),
            packet(5),
            packet(4),
            "text",
        ):
            await socket.send(bad)
        for reason in ("length", "version", "flags", "not_finite", "range", "duplicate", "late", "text"):
            await gateway.reaches(1, PACKETS, result=reason)
        await socket.send(packet(6))
        await generator.gets(2)
    assert [motion.packet for motion in generator.motion] == [packet(5), packet(6)]


async def test_sustained_abuse_is_closed_with_1008(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        for _ in range(101):
            await socket.send(b"nonsense")
        assert await closed(socket) == (1008, "most packets of this uplink were refused")
    await gateway.reaches(1, "mien_uplink_closed_total", code="1008")
    assert await gateway.metric(PACKETS, result="version") == 101
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        await socket.send(packet(0))  # the session itself is none the worse
        await gateway.reaches(1, PACKETS, result="accepted")


async def test_a_flood_is_held_to_the_rate(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        with contextlib.suppress(ConnectionClosed):
            for i in range(100_000):
                await socket.send(packet(i % 65536))
        assert await closed(socket) == (1008, "most packets of this uplink were refused")
    assert await gateway.metric(PACKETS, result="rate") >= 101


async def test_a_second_uplink_takes_over(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    async with uplink(gateway, created["session_id"], created["token"]) as first:
        await first.send(packet(100))
        await generator.gets(1)
        async with uplink(gateway, created["session_id"], created["token"]) as second:
            assert await closed(first) == (4409, "replaced by another uplink of this session")
            await second.send(packet(0))
            await generator.gets(2)
            assert await gateway.metric("mien_uplinks") == 1
    await gateway.reaches(1, "mien_uplink_closed_total", code="4409")


async def test_packets_of_a_session_that_nobody_holds_are_counted(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    await generator.is_told(1)
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        generator.sessions.clear()
        await Registry(generator.redis).release("g1", created["session_id"])
        sequence = 0
        async with asyncio.timeout(20):
            while not await gateway.metric(PACKETS, result="no_owner"):
                await socket.send(packet(sequence := sequence + 1))
        other = await start_generator("g2")
        await Registry(generator.redis).hold("g2", created["session_id"])
        other.sessions.add(created["session_id"])
        async with asyncio.timeout(20):
            while not other.motion:
                await socket.send(packet(sequence := sequence + 1))
                await asyncio.sleep(0.03)


async def test_ending_the_session_closes_its_uplink(start_gateway: Any, start_generator: Any) -> None:
    here, elsewhere = await start_gateway(), await start_gateway()
    await start_generator()
    for ender in (here, elsewhere):
        created = await here.create_session()
        async with uplink(here, created["session_id"], created["token"]) as socket:
            headers = {"Authorization": f"Bearer {created['token']}"}
            answer = await ender.http.delete(f"/v1/sessions/{created['session_id']}", headers=headers)
            assert answer.status_code == 204
            assert await closed(socket) == (4410, "the session has ended: its speaker ended it")
        assert (await refused(uplink(here, created["session_id"], created["token"])))[0] == 404


async def test_redis_going_away_closes_nothing_and_the_session_outlives_it(
    start_gateway: Any, start_generator: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        await socket.send(packet(0))
        await generator.gets(1)
        redis_server.stop()
        await gateway.becomes_ready(503)
        other = await refused(uplink(gateway, created["session_id"], created["token"]))
        assert other == (503, "redis-unavailable")
        await socket.send(packet(1))
        redis_server.start()  # empty: nothing of the session is left in it
        await gateway.becomes_ready()
        sequence = 1
        async with asyncio.timeout(20):
            while len(generator.motion) < 2:
                await socket.send(packet(sequence := sequence + 1))
                await asyncio.sleep(0.03)
        registry = Registry(generator.redis)
        async with asyncio.timeout(20):
            while await registry.session(created["session_id"]) is None:
                await asyncio.sleep(0.1)
    assert await gateway.metric("mien_redis_failures_total") > 0


async def test_the_newest_uplink_wins_on_whatever_gateway_it_is(start_gateway: Any, start_generator: Any) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    generator = await start_generator()
    created = await gateways[0].create_session()
    session_id, token = created["session_id"], created["token"]
    async with uplink(gateways[0], session_id, token) as first:
        await first.send(packet(1))
        await generator.gets(1)
        async with uplink(gateways[1], session_id, token) as second:
            assert await closed(first) == (4409, "replaced by another uplink of this session")
            await gateways[0].reaches(1, "mien_uplink_closed_total", code="4409")
            await second.send(packet(1000))
            await generator.gets(2)
            async with uplink(gateways[0], session_id, token) as third:
                assert await closed(second) == (4409, "replaced by another uplink of this session")
                await third.send(packet(2000))
                await generator.gets(3)
    assert [motion.packet for motion in generator.motion] == [packet(1), packet(1000), packet(2000)]


async def test_what_a_replaced_uplink_still_sends_is_not_forwarded(start_gateway: Any, start_generator: Any) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    generator = await start_generator()
    created = await gateways[0].create_session()
    session_id, token = created["session_id"], created["token"]
    reader, writer = await open_uplink_that_never_reads(gateways[0], session_id, token)
    try:
        writer.write(masked(packet(1)))
        await generator.gets(1)
        async with uplink(gateways[1], session_id, token) as second:
            await gateways[0].reaches(1, "mien_uplink_closed_total", code="4409")
            writer.write(masked(packet(2)))  # its peer has not seen the close yet
            await second.send(packet(1000))
            await generator.gets(2)
            assert generator.motion[1].packet == packet(1000)
            assert await gateways[0].metric("mien_uplinks") == 0
    finally:
        writer.close()
        reader.feed_eof()


async def test_redis_coming_back_empty_replaces_nobody(
    start_gateway: Any, start_generator: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    registry = Registry(generator.redis)
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        claimed = (await registry.uplink_states([created["session_id"]]))[created["session_id"]].connection_id
        redis_server.stop()
        await gateway.becomes_ready(503)
        redis_server.start()
        await gateway.becomes_ready()
        async with asyncio.timeout(20):
            while (state := (await registry.uplink_states([created["session_id"]]))[created["session_id"]]) and (
                state.connection_id is None
            ):
                await asyncio.sleep(0.1)
        assert state.connection_id == claimed
        await socket.ping()
    assert await gateway.metric("mien_uplink_closed_total", code="4409") == 0


async def open_uplink_that_never_reads(
    gateway: Any, session_id: str, token: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An uplink without a WebSocket library, which would answer a close by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(
        f"GET /v1/sessions/{session_id}/uplink HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A client's binary frame of 126 to 65535 bytes, masked with zeros (RFC 6455, section 5.2)."""
    return b"\x82" + bytes([0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload
