"""The channels on a real Redis: capped, newest wins, drops counted, and on their feet after Redis was away."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from outages import hanging, stopped
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.channels import (
    PENDING_FRAMES,
    VIDEO_CAP,
    FramePublisher,
    GeneratorInbox,
    MotionForwarder,
    VideoSubscription,
    send_control,
)
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import EncodedFrame, InboundMotion, KeyframeReason, RequestKeyframe, SetBitrate

pytestmark = pytest.mark.integration


def frame(index: int, run: str = "run") -> EncodedFrame:
    return EncodedFrame(run, index, index * 3000, index == 0, b"\x00\x00\x01" + bytes([index % 256]))


async def test_motion_and_control_reach_the_generator_in_one_read(redis: Redis) -> None:
    forwarder = MotionForwarder(redis, lambda reason, count: None)
    forwarder.push("g", InboundMotion("one", b"1" * 128, 11))
    forwarder.push("g", InboundMotion("two", b"2" * 128, 12))
    await forwarder.flush()
    await send_control(redis, "g", RequestKeyframe(session_id="one", reason=KeyframeReason.JOIN))
    messages = await GeneratorInbox(redis, "g").read()
    assert InboundMotion("one", b"1" * 128, 11) in messages
    assert InboundMotion("two", b"2" * 128, 12) in messages
    assert RequestKeyframe(session_id="one", reason=KeyframeReason.JOIN) in messages


async def test_motion_of_one_moment_is_one_entry_for_each_generator(redis: Redis) -> None:
    forwarder = MotionForwarder(redis, lambda reason, count: None)
    sent = [InboundMotion(f"s{number}", bytes([number]) * 128, number) for number in range(6)]
    for motion in sent:
        forwarder.push("even" if motion.received_unix_us % 2 == 0 else "odd", motion)
    await forwarder.flush()
    for generator_id, expected in (("even", sent[::2]), ("odd", sent[1::2])):
        assert await redis.xlen(keys.inbox(generator_id)) == 1
        assert await GeneratorInbox(redis, generator_id).read() == expected


async def test_the_newest_motion_of_a_session_wins_and_the_other_is_counted(redis: Redis) -> None:
    dropped: Counter[str] = Counter()
    forwarder = MotionForwarder(redis, lambda reason, count: dropped.update({reason: count}))
    for number in range(5):
        forwarder.push("g", InboundMotion("one", bytes([number]) * 128, number))
    await forwarder.flush()
    assert await GeneratorInbox(redis, "g").read() == [InboundMotion("one", b"\x04" * 128, 4)]
    assert dropped == {"superseded": 4}


async def test_nothing_is_lost_between_two_reads(redis: Redis) -> None:
    inbox = GeneratorInbox(redis, "g")
    got: list[int] = []

    async def read_all() -> None:
        while len(got) < 50:
            got.extend(message.bitrate_bps for message in await inbox.read() if isinstance(message, SetBitrate))

    reader = asyncio.create_task(read_all())
    for number in range(1, 51):
        await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=number))
    await asyncio.wait_for(reader, 5)
    assert got == list(range(1, 51))


async def test_what_is_no_message_harms_no_other(redis: Redis) -> None:
    await redis.xadd(keys.control("g"), {b"m": b'{"kind": "dance"}'})
    await redis.xadd(keys.inbox("g"), {b"b": b"\xff"})
    motion = InboundMotion("one", b"1" * 128, 1)
    forwarder = MotionForwarder(redis, lambda reason, count: None)
    forwarder.push("g", motion)
    await forwarder.flush()
    await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=7))
    messages = await GeneratorInbox(redis, "g").read()
    assert len(messages) == 2
    assert motion in messages
    assert SetBitrate(session_id="one", bitrate_bps=7) in messages


async def test_frames_arrive_whole_and_in_order(redis: Redis) -> None:
    subscription = VideoSubscription(redis, "one")
    first_read = asyncio.create_task(subscription.read())
    await asyncio.sleep(0.05)
    publisher = FramePublisher(redis, lambda session_id, frames: None)
    frames = [frame(index) for index in range(5)]
    for one in frames:
        publisher.push("one", one)
    await publisher.flush()
    got = await first_read  # a reader that waits is woken by the first of them
    while len(got) < len(frames):
        got += await subscription.read()
    assert got == frames


async def test_a_subscriber_starts_at_the_newest_frame(redis: Redis) -> None:
    publisher = FramePublisher(redis, lambda session_id, frames: None)
    publisher.push("one", frame(0))
    await publisher.flush()
    subscription = VideoSubscription(redis, "one")
    reading = asyncio.create_task(subscription.read())
    await asyncio.sleep(0.05)
    publisher.push("one", frame(1))
    await publisher.flush()
    assert await reading == [frame(1)]


async def test_frames_that_wait_too_long_are_dropped_together(redis: Redis) -> None:
    lost: list[tuple[str, int]] = []
    publisher = FramePublisher(redis, lambda session_id, frames: lost.append((session_id, frames)))
    for index in range(PENDING_FRAMES + 1):
        publisher.push("one", frame(index))
    publisher.push("two", frame(0))
    await publisher.flush()
    assert lost == [("one", PENDING_FRAMES)]
    assert await redis.xlen(keys.video("one")) == 1
    assert await redis.xlen(keys.video("two")) == 1


async def test_a_video_channel_is_capped_and_lapses(redis: Redis) -> None:
    publisher = FramePublisher(redis, lambda session_id, frames: None)
    for index in range(VIDEO_CAP + 25):
        publisher.push("one", frame(index))
        await publisher.flush()
    assert await redis.xlen(keys.video("one")) == VIDEO_CAP
    assert 0 < await redis.ttl(keys.video("one")) <= 30


async def test_redis_goes_away_and_comes_back_empty(redis: Redis, redis_server: EmbeddedRedis) -> None:
    dropped: Counter[str] = Counter()
    forwarder = MotionForwarder(redis, lambda reason, count: dropped.update({reason: count}))
    lost: list[tuple[str, int]] = []
    publisher = FramePublisher(redis, lambda session_id, frames: lost.append((session_id, frames)))
    inbox, subscription = GeneratorInbox(redis, "g"), VideoSubscription(redis, "one")
    await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=1))
    assert len(await inbox.read()) == 1
    await asyncio.to_thread(redis_server.stop)
    forwarder.push("g", InboundMotion("one", b"1" * 128, 1))
    forwarder.push("g", InboundMotion("two", b"1" * 128, 1))
    publisher.push("one", frame(0))
    for call in (forwarder.flush(), publisher.flush(), inbox.read(), subscription.read()):
        with pytest.raises(BUS_ERRORS):
            await call
    assert dropped == {"redis": 2}
    assert lost == [("one", 1)]
    await asyncio.to_thread(redis_server.start)
    forwarder.push("g", InboundMotion("one", b"2" * 128, 2))
    await forwarder.flush()
    assert await inbox.read() == [InboundMotion("one", b"2" * 128, 2)]
    reading = asyncio.create_task(subscription.read())
    await asyncio.sleep(0.05)
    publisher.push("one", frame(7))
    await publisher.flush()
    assert await reading == [frame(7)]


async def test_a_redis_that_hangs_brings_no_message_twice(redis: Redis, redis_server: EmbeddedRedis) -> None:
    async with Redis.from_url(redis_server.url, socket_timeout=0.2) as impatient:
        inbox = GeneratorInbox(impatient, "g")
        await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=1))
        assert await inbox.read() == [SetBitrate(session_id="one", bitrate_bps=1)]
        async with hanging(redis_server):
            with pytest.raises(BUS_ERRORS):
                await inbox.read()
        await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=2))
        assert await inbox.read() == [SetBitrate(session_id="one", bitrate_bps=2)]


async def test_a_redis_that_comes_back_empty_with_a_slower_clock_is_read_from_the_beginning(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    far_ahead = "9999999999999-0"
    inbox, subscription = GeneratorInbox(redis, "g"), VideoSubscription(redis, "one")
    await redis.xadd(keys.control("g"), {b"m": SetBitrate(session_id="one", bitrate_bps=1).to_bytes()}, id=far_ahead)
    await redis.xadd(keys.inbox("g"), {b"b": b""}, id=far_ahead)
    await redis.xadd(keys.video("one"), {b"r": b"r", b"i": 0, b"t": 0, b"k": 1, b"d": b""}, id=far_ahead)
    assert len(await inbox.read()) == 1
    assert await subscription.read() == []  # it skips what was there before
    async with stopped(redis_server):
        pass
    await send_control(redis, "g", SetBitrate(session_id="one", bitrate_bps=2))
    forwarder = MotionForwarder(redis, lambda reason, count: None)
    forwarder.push("g", InboundMotion("one", b"2" * 128, 2))
    await forwarder.flush()
    publisher = FramePublisher(redis, lambda session_id, frames: None)
    publisher.push("one", frame(0))
    await publisher.flush()
    got: list[object] = []
    async with asyncio.timeout(10):
        while len(got) < 3:
            got += [*await inbox.read(), *await subscription.read()]
    assert SetBitrate(session_id="one", bitrate_bps=2) in got
    assert InboundMotion("one", b"2" * 128, 2) in got
    assert frame(0) in got
