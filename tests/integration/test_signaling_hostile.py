"""Hostile viewers (tests/hostile) against signaling with real Redis and a real stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from hostile import extra_sections, forged_offers, nack_flood, voice_flood
from hostile.whep import Endpoint, connect, new_client, verdicts
from integration.test_signaling_media import SESSION, RunApp, World, eventually, settings, world
from integration.test_signaling_whep import metric
from integration.voice_peers import bearer

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.registry import Registry
from mien_signaling.app import create_app

pytestmark = pytest.mark.integration
__all__ = ["world"]  # a fixture


def endpoint_of(client: httpx.AsyncClient) -> Endpoint:
    return Endpoint(f"{str(client.base_url).rstrip('/')}/v1/whep/{SESSION.session_id}")


def decoders() -> int:
    """Threads that decode what arrives."""
    return sum(thread.name.endswith("-decoder") for thread in threading.enumerate())


async def test_what_a_viewer_sends_starts_no_decoder(world: World) -> None:
    most = 0

    async def watch_decoders() -> None:
        nonlocal most
        while True:
            most = max(most, decoders())
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch_decoders())
    result = await extra_sections.attack(endpoint_of(world.client), 1.0)
    watching.cancel()
    assert result.verdicts == ["video sendonly", *["video refused"] * extra_sections.EXTRA_SECTIONS]
    assert result.sent_packets == 0
    assert result.unannounced_packets > 0
    assert most == 1, "only the attacker decodes: the stream that it watches"


async def test_a_data_channel_is_refused_and_the_video_comes(world: World) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", direction="recvonly")
    opened = asyncio.Event()
    peer.createDataChannel("anything").on("open", opened.set)
    async with new_client() as client:
        answer = await connect(endpoint_of(world.client), client, peer)
    assert verdicts(answer) == ["video sendonly", "application refused"]
    receiver = peer.getTransceivers()[0].receiver
    await eventually(lambda: bool(receiver._RTCRtpReceiver__remote_streams))
    assert not opened.is_set()
    await peer.close()


async def test_a_flood_of_nacks_gets_a_share_of_the_stream(world: World) -> None:
    seconds = 3.0
    other = await world.watcher()
    await other.see(5)
    seen = other.frames
    result = await nack_flood.attack(endpoint_of(world.client), seconds)
    assert result.first_bps > 0
    # Half of the stream, and the second of it that was saved; 100 times the stream before there was a budget.
    assert 0 < result.again_bps < result.first_bps
    assert other.frames > seen
    for reason in ("repeated", "over_budget"):
        assert await world.metric(f'mien_viewer_nack_packets_ignored_total{{reason="{reason}"}}') > 0
    asked = await world.metric("mien_viewer_nack_packets_total")
    assert 0 < await world.metric("mien_viewer_packets_sent_again_total") < asked / 5


async def test_what_a_speaker_floods_is_bounded_and_counted(world: World) -> None:
    other = await world.watcher()
    await other.see(5)
    seen, before = other.frames, decoders()
    token = bearer(SESSION.session_id)["Authorization"].removeprefix("Bearer ")
    url = f"{str(world.client.base_url).rstrip('/')}/v1/whip/{SESSION.session_id}"
    result = await voice_flood.attack(Endpoint(url, token), 45.0)
    # Whoever goes on costs decryption, so the service hangs up. Datagrams that nobody signed end no connection: they
    # could be a stranger's.
    assert set(result.ended) >= set(voice_flood.ATTACKS) - {"datagrams of 60,000 bytes"}
    # The attacker's own libsrtp refuses some of its packets; that ends these attacks too.
    assert await world.metric('mien_whip_uplinks_gone_total{reason="abusive"}') >= 5
    assert decoders() == before
    assert other.frames > seen
    results = ("rate", "ssrc", "payload_type", "size", "duplicate")
    counts = {one: await world.metric(f'mien_voice_packets_received_total{{result="{one}"}}') for one in results}
    assert all(counts[one] for one in ("rate", "ssrc", "payload_type", "size")), counts
    assert await world.metric('mien_whip_refused_total{reason="rtcp"}') > 0
    assert await world.metric('mien_whip_motion_packets_total{result="text"}') > 0
    assert await world.metric("mien_unreadable_datagrams_total") > 0
    taken = await world.metric('mien_voice_packets_received_total{result="accepted"}')
    assert taken < sum(result.sent.values()) / 10


@pytest.fixture
async def idle(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[httpx.AsyncClient]:
    """Signaling with a session that sends nothing."""
    async with open_redis(redis_server.url) as redis:
        registry = Registry(redis)
        await registry.keep_alive(SESSION)
        await registry.hold("generator", SESSION.session_id, ttl_ms=60_000)
        url = await run_app(create_app(settings(redis_server, connect_timeout_s=1.0, linger_s=0.1)))
        async with httpx.AsyncClient(base_url=url, timeout=15) as client:
            yield client


async def test_forged_offers_are_answered_by_name_and_forgotten(idle: httpx.AsyncClient) -> None:
    result = await forged_offers.attack(endpoint_of(idle))
    refused = ["video refused"] * 7
    assert result.answers == {
        "seven sections that send": ", ".join(["201 video sendonly", *refused]),
        "seven sections that send and receive": ", ".join(["201 video sendonly", *refused]),
        "a hundred sections": "422",
        "a data channel": "201 video sendonly, application refused",
        "a data channel that carries the connection": "201 application refused, video sendonly",
        "a kind that does not exist": "201 x-hologram refused, video sendonly",
        "audio that carries the connection": "201 audio sendonly, video sendonly",
        "bundle-only without a group": "422",
        "bundle-only alone in its group": "422",
        "two sections of one mid": "400",
        "a group of sections that are not there": "422",
        "a mid that ends the line": "422",
        "two hundred targets for our checks": "422",
        "a name for us to look up": "201 video sendonly",
        "an interface for us to use": "201 video sendonly",
        "a port that does not exist": "201 video sendonly",
        "credentials of sixty thousand bytes": "400",
        "a payload type that looks like RTCP": "422",
        "no fingerprint that can be checked": "422",
        "a setup that does not exist": "422",
        "an extension id above those of RFC 8285": "201 video sendonly",
    }
    async with asyncio.timeout(20):
        while await metric(idle, 'mien_viewers{state="connecting"}') or await metric(idle, "mien_watched_sessions"):
            await asyncio.sleep(0.05)
