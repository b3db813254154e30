"""Lips and voice at real receivers: both are told when they were recorded, and the voice waits for the picture."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import pytest
from integration.test_signaling_voice import WORDS, World, world
from integration.voice_peers import Ears, Listener, Talker, until

from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling.lipsync import RECEIVER_VOICE_BUFFER_S

pytestmark = pytest.mark.integration

__all__ = ["world"]  # a fixture

#: The third second of a call: what comes earlier does not count.
SETTLED_S = 3.0
#: Voice may be ahead or behind by this much (ITU-R BT.1359 sees 45 ms ahead as the threshold of detection).
LARGEST_OFFSET_S = 0.045


async def keep_talking(talker: Talker) -> None:
    """As a device does: a packet every 20 ms by the clock, so that its timestamps are the time of the recording."""
    began_s, number = time.monotonic(), 0
    while True:
        talker.say(WORDS[number % len(WORDS)])
        number += 1
        await asyncio.sleep(max(0.0, began_s + 0.02 * number - time.monotonic()))


def delays(ears: Ears, clock_hz: int, since_s: float) -> list[float]:
    """For each packet since then: how long after its recording, as the reports tell it, it arrived."""
    found = []
    for packet in ears.packets:
        recorded_s = ears.capture_s(packet.timestamp, clock_hz)
        if packet.at_s >= since_s and recorded_s is not None:
            found.append(packet.at_s - recorded_s)
    return found


def offset_s(listener: Listener, since_s: float) -> float:
    """How far the voice is ahead of the lips once the receiver has buffered both."""
    voice, picture = delays(listener.voice, 48_000, since_s), delays(listener.picture, VIDEO_CLOCK_HZ, since_s)
    assert voice and picture, "a report is missing"
    return median(picture) - median(voice) - RECEIVER_VOICE_BUFFER_S


@pytest.mark.parametrize("latency_ms", [150, 400])
async def test_from_the_third_second_on_lips_and_voice_agree(world: World, latency_ms: int) -> None:
    world.publisher.latency_s = latency_ms / 1000
    listener, talker = await world.listener(), await world.talker()
    await until(lambda: len(listener.picture.packets) > 5)
    joined_s = time.time()
    talking = asyncio.create_task(keep_talking(talker))
    try:
        await until(lambda: time.time() > joined_s + SETTLED_S + 2 and len(listener.voice.reports) > 1)
        assert abs(offset_s(listener, joined_s + SETTLED_S)) <= LARGEST_OFFSET_S
    finally:
        talking.cancel()


async def test_an_idle_picture_holds_no_voice_back(world: World) -> None:
    world.publisher.latency_s, world.publisher.is_stalled = 0.4, True
    listener, talker = await world.listener(), await world.talker()
    await until(lambda: len(listener.picture.packets) > 5)
    await talker.talk(WORDS.__getitem__, 10)
    await listener.hear(10)
    # Held packets are in the buckets above zero.
    assert await world.metric('mien_voice_hold_seconds_bucket{le="0.0"}') == 10


async def test_no_report_names_a_time_before_it_is_known(world: World) -> None:
    listener, talker = await world.listener(), await world.talker()  # the frames have no trace
    talking = asyncio.create_task(keep_talking(talker))
    try:
        await asyncio.sleep(3)
        assert len(listener.voice.packets) > 50
        assert not listener.voice.reports and not listener.picture.reports
    finally:
        talking.cancel()


async def test_a_viewer_without_voice_is_told_the_time_of_sending(world: World) -> None:
    world.publisher.latency_s = 0.4
    viewer = await world.listener(voice=False)
    await until(lambda: len(viewer.picture.reports) > 0)
    report = viewer.picture.reports[-1]
    assert abs(report.unix_s - report.at_s) < 0.35
