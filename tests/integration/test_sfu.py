"""Sessions are published to a real Janus: viewers that never reach signaling see and hear them from there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from integration.janus import BEARER, subscribed, why_impossible
from integration.sfu_world import PATIENCE_S, SfuWorld, sees, sfu_world
from integration.test_signaling_media import SESSION, RunApp
from integration.voice_peers import Talker, until

from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import KeyframeReason
from mien_signaling.sfu_voice import SILENCE

_WHY_NOT = why_impossible()
pytestmark = [pytest.mark.integration, pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))]


@pytest.fixture
async def world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[SfuWorld]:
    async with sfu_world(redis_server, run_app) as found:
        yield found


async def test_viewers_of_the_sfu_see_and_hear_the_session(world: SfuWorld) -> None:
    client = await world.signaling()
    await world.order()
    await world.becomes("connected")
    talker = Talker(client, SESSION.session_id)
    world.stack.push_async_callback(talker.close)
    await talker.join()
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await sees(viewer)
        assert KeyframeReason.PLI in [reason for _, reason in world.publisher.requests], "a viewer asks by the SFU"
        words = [bytes([0x78, number]) * 20 for number in range(100)]
        await talker.talk(words.__getitem__, len(words))
        await until(lambda: sum(packet.payload in words for packet in viewer.voice.packets) >= 50, PATIENCE_S)
        heard = [packet for packet in viewer.voice.packets if packet.payload in words]
        assert all((b.timestamp - a.timestamp) % 2**32 % 960 == 0 for a, b in pairwise(heard))
        rising = [(b.sequence - a.sequence) % 2**16 for a, b in pairwise(viewer.voice.packets)]
        assert all(0 < step < 2**15 for step in rising), "silence and voice are one stream"
    await world.order(wanted=False)
    await until(lambda: not world.front.handles, PATIENCE_S)
    await world.becomes(None)
    assert await world.egresses.resource(SESSION.session_id) is None
    assert set(world.front.bearers) == {f"Bearer {BEARER}"}
    assert world.front.offers[0].count("a=sendonly") == 2 and "a=setup:actpass" in world.front.offers[0]
    streams = {line.split()[0] for line in world.front.offers[0].splitlines() if line.startswith("a=msid:")}
    assert len(streams) == 1, "RFC 9725, section 4.4.2"


async def test_a_session_without_voice_has_a_track_of_silence(world: SfuWorld) -> None:
    await world.signaling(sfu_sessions="all")
    await world.becomes("connected")
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await until(lambda: len(viewer.voice.packets) >= 5, PATIENCE_S)
        assert {packet.payload for packet in viewer.voice.packets} == {SILENCE}
        await sees(viewer)
