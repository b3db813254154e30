"""The voice channel on a real Redis: order, bounds, silence, and a Redis that comes back."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.voice import (
    MAX_VOICE_BYTES,
    PENDING_PACKETS,
    VOICE_CAP,
    VoicePacket,
    VoicePacketError,
    VoicePublisher,
    VoiceSubscription,
)

pytestmark = pytest.mark.integration


def packet(sequence: int, payload: bytes = b"opus") -> VoicePacket:
    return VoicePacket(b"run-0001", sequence, 960 * sequence, False, 40, None, payload)


@pytest.mark.parametrize("level", [None, 0, 127])
@pytest.mark.parametrize("capture_us", [None, 0, -5, 1_700_000_000_000_000])
@pytest.mark.parametrize("marker", [True, False])
def test_a_packet_survives_the_way(level: int | None, capture_us: int | None, marker: bool) -> None:
    one = VoicePacket(b"\0\1\2\3\4\5\6\7", 65535, 2**32 - 1, marker, level, capture_us, bytes(MAX_VOICE_BYTES))
    assert VoicePacket.unpack(one.pack()) == one


@pytest.mark.parametrize("data", [b"", bytes(24), packet(1, b"").pack(), packet(1, bytes(MAX_VOICE_BYTES + 1)).pack()])
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(VoicePacketError, match=f"a voice packet of {len(data)} bytes cannot be read"):
        VoicePacket.unpack(data)


async def test_packets_arrive_in_order_and_the_stream_is_bounded_and_expires(redis: Redis) -> None:
    dropped: list[int] = []
    publisher, subscription = VoicePublisher(redis, dropped.append), VoiceSubscription(redis, "s")
    reading = asyncio.create_task(subscription.read())
    await asyncio.sleep(0.2)
    for sequence in range(VOICE_CAP + 50):
        publisher.push("s", packet(sequence))
        if sequence % 10 == 9:
            await publisher.flush()
    got = await reading
    while len(got) < VOICE_CAP + 50 and (more := await subscription.read()):
        got += more
    assert [one.sequence for one in got] == sorted(one.sequence for one in got)
    assert got[-1] == packet(VOICE_CAP + 49) and not dropped
    assert await redis.xlen(keys.voice("s")) <= VOICE_CAP
    assert 0 < await redis.ttl(keys.voice("s")) <= keys.VOICE_S


async def test_the_newest_packets_win_while_redis_is_slow(redis: Redis) -> None:
    dropped: list[int] = []
    publisher = VoicePublisher(redis, dropped.append)
    for sequence in range(PENDING_PACKETS + 3):
        publisher.push("s", packet(sequence))
    await publisher.flush()
    assert dropped == [1, 1, 1]
    (oldest, *_) = await redis.xrange(keys.voice("s"))
    assert VoicePacket.unpack(oldest[1][b"v"]).sequence == 3


async def test_a_failure_counts_what_is_lost(redis: Redis, redis_server: EmbeddedRedis) -> None:
    dropped: list[int] = []
    publisher = VoicePublisher(redis, dropped.append)
    publisher.push("s", packet(1))
    publisher.push("t", packet(2))
    redis_server.stop()
    with pytest.raises(BUS_ERRORS):
        await publisher.flush()
    assert dropped == [2]


async def test_a_new_reader_skips_what_is_old_and_a_broken_entry_costs_only_itself(redis: Redis) -> None:
    broken: list[int] = []
    publisher = VoicePublisher(redis, lambda packets: None)
    subscription = VoiceSubscription(redis, "s", lambda: broken.append(1))
    publisher.push("s", packet(1))
    await publisher.flush()
    assert await subscription.read() == []
    await redis.xadd(keys.voice("s"), {"v": "broken"})
    await redis.xadd(keys.voice("s"), {"another": "field"})
    publisher.push("s", packet(2))
    await publisher.flush()
    assert await subscription.read() == [packet(2)]
    assert len(broken) == 2


async def test_after_an_outage_a_reader_continues_with_what_is_new(redis: Redis, redis_server: EmbeddedRedis) -> None:
    publisher, subscription = VoicePublisher(redis, lambda packets: None), VoiceSubscription(redis, "s")
    publisher.push("s", packet(1))
    await publisher.flush()
    await subscription.read()
    redis_server.stop()
    with pytest.raises(BUS_ERRORS):
        await subscription.read()
    redis_server.start()  # with nothing in it
    reading = asyncio.create_task(subscription.read())
    await asyncio.sleep(0.2)
    publisher.push("s", packet(2))
    await publisher.flush()
    assert await reading == [packet(2)]


async def test_a_stream_that_began_anew_is_read_from_its_beginning(redis: Redis) -> None:
    subscription = VoiceSubscription(redis, "s")
    await redis.xadd(keys.voice("s"), {b"v": packet(1).pack()}, id="9999999999999-0")  # by a clock that was ahead
    assert await subscription.read() == []
    await redis.delete(keys.voice("s"))
    assert await subscription.read() == []
    await redis.xadd(keys.voice("s"), {b"v": packet(2).pack()})
    assert await subscription.read() == [packet(2)]
