"""Voice through signaling with real Redis and real peers: every packet arrives as the speaker made it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise

import httpx
import numpy as np
import pytest
from aiortc.rtp import RtcpRrPacket, is_rtcp
from fastapi import FastAPI
from integration.test_signaling_media import SESSION, Publisher, RunApp, settings
from integration.voice_peers import FRAME_TICKS, Listener, Talker, bearer, until

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.registry import Registry
from mien_shared.http.principal import Grant
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_signaling.app import create_app

pytestmark = pytest.mark.integration

_random = random.Random(7)
#: Payloads that are no Opus at all: whoever decoded one would fail.
WORDS = [bytes([number & 0xFF]) + _random.randbytes(20 + number % 150) for number in range(400)]


@dataclass
class World:
    client: httpx.AsyncClient
    publisher: Publisher
    stack: AsyncExitStack
    app: FastAPI

    async def talker(self, client: httpx.AsyncClient | None = None, **options: object) -> Talker:
        talker = Talker(client or self.client, SESSION.session_id, **options)  # type: ignore[arg-type]
        self.stack.push_async_callback(talker.close)
        await talker.join()
        return talker

    async def listener(self, client: httpx.AsyncClient | None = None, *, voice: bool = True) -> Listener:
        listener = Listener(client or self.client, SESSION.session_id, voice=voice)
        self.stack.push_async_callback(listener.close)
        await listener.join()
        return listener

    async def metric(self, line: str, client: httpx.AsyncClient | None = None) -> float:
        text = (await (client or self.client).get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
        return float(values[0]) if values else 0.0

    async def reaches(self, line: str, least: float) -> None:
        async with asyncio.timeout(20):
            while await self.metric(line) < least:
                await asyncio.sleep(0.02)


@pytest.fixture
async def world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        publisher = Publisher(redis)
        await stack.enter_async_context(publisher.live())
        app = create_app(settings(redis_server))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=await run_app(app), timeout=15))
        yield World(client, publisher, stack, app)


async def another_service(world: World, redis_server: EmbeddedRedis, run_app: RunApp) -> httpx.AsyncClient:
    url = await run_app(create_app(settings(redis_server)))
    return await world.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))


def packets_of(talker: Talker, listener: Listener) -> list[bytes]:
    return [packet.payload for packet in listener.voice.packets]


def rises_by_one(listener: Listener) -> bool:
    return all((b.sequence - a.sequence) & 0xFFFF == 1 for a, b in pairwise(listener.voice.packets))


async def test_every_listener_gets_the_speaker_s_bytes_and_others_none(world: World) -> None:
    listeners = [await world.listener() for _ in range(2)]
    deaf = await world.listener(voice=False)
    talker = await world.talker()
    await talker.talk(WORDS.__getitem__, 50)
    for listener in listeners:
        await listener.hear(50)
        assert packets_of(talker, listener) == WORDS[:50]
        assert rises_by_one(listener)
        steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(listener.voice.packets)}
        assert steps == {FRAME_TICKS}
        assert listener.voice.packets[0].marker
    await until(lambda: len(deaf.picture.packets) > 10)
    assert "m=audio" not in deaf.answer and not deaf.voice.packets
    assert await world.metric('mien_voice_packets_received_total{result="accepted"}') == 50
    assert await world.metric("mien_voice_packets_sent_total") >= 100


async def test_the_answers_ask_for_redundancy_and_silence_without_packets(world: World) -> None:
    listener, talker = await world.listener(), await world.talker()
    for answer in (listener.answer, talker.answer):
        assert "minptime=10;useinbandfec=1;usedtx=1" in answer
        assert answer.count("m=audio") == 1
    assert "a=recvonly" in talker.answer and "a=max-message-size:512" in talker.answer
    streams = {line.split()[0] for line in listener.answer.splitlines() if line.startswith("a=msid:")}
    assert len(streams) == 1  # one sync group


async def test_numbers_go_on_over_silence_and_loss_stays_a_gap(world: World) -> None:
    listener, talker = await world.listener(), await world.talker()
    transport, lost = talker.sender.transport, set(range(12, 15))
    send, count = transport._send_rtp, iter(range(10_000))

    async def lossy(data: bytes) -> None:
        if is_rtcp(data) or next(count) not in lost:
            await send(data)

    transport._send_rtp = lossy
    await talker.talk(WORDS.__getitem__, 20)
    talker.say(WORDS[20], silence_ticks=48_000)
    await listener.hear(18)
    got = listener.voice.packets
    assert [packet.payload for packet in got] == [word for at, word in enumerate(WORDS[:21]) if at not in lost]
    sequences = [(packet.sequence - got[0].sequence) & 0xFFFF for packet in got]
    assert sequences == [at for at in range(21) if at not in lost]
    assert (got[-1].timestamp - got[-2].timestamp) & 0xFFFFFFFF == FRAME_TICKS + 48_000


async def test_a_speaker_that_comes_back_elsewhere_continues_the_stream(
    world: World, redis_server: EmbeddedRedis, run_app: RunApp
) -> None:
    listener, first = await world.listener(), await world.talker()
    await first.talk(WORDS.__getitem__, 20)
    await listener.hear(20)
    elsewhere = await another_service(world, redis_server, run_app)
    second = await world.talker(elsewhere)
    await second.talk(WORDS.__getitem__, 20, first=20)
    await listener.hear(40)
    assert packets_of(second, listener)[:40] == WORDS[:40]
    assert rises_by_one(listener)
    joint = listener.voice.packets[20]
    assert joint.marker and 0 < (joint.timestamp - listener.voice.packets[19].timestamp) & 0xFFFFFFFF < 48_000 * 20
    # The newest uplink owns the session everywhere.
    async with asyncio.timeout(20):
        while (answer := await world.client.delete(first.url, headers=first.headers)).status_code != 410:
            assert answer.status_code == 200, answer.text
    assert answer.json()["type"].endswith("uplink-ended")
    assert "another uplink" in answer.json()["detail"]


async def test_listeners_of_two_services_hear_one_speaker(
    world: World, redis_server: EmbeddedRedis, run_app: RunApp
) -> None:
    elsewhere = await another_service(world, redis_server, run_app)
    near, far, talker = await world.listener(), await world.listener(elsewhere), await world.talker()
    await talker.talk(WORDS.__getitem__, 30)
    for listener in (near, far):
        await listener.hear(30)
        assert packets_of(talker, listener) == WORDS[:30]


async def test_without_redis_voice_is_dropped_and_comes_back(world: World, redis_server: EmbeddedRedis) -> None:
    listener, talker = await world.listener(), await world.talker()
    await talker.talk(WORDS.__getitem__, 10)
    await listener.hear(10)
    redis_server.stop()
    await talker.talk(WORDS.__getitem__, 30, first=10)
    await world.reaches('mien_voice_packets_dropped_total{reason="redis"}', 1)
    redis_server.start()
    heard = len(listener.voice.packets)
    number = 40
    async with asyncio.timeout(30):
        while len(listener.voice.packets) < heard + 20:
            await talker.talk(WORDS.__getitem__, 1, first=number % 400)
            number += 1
    assert listener.peer.connectionState == talker.peer.connectionState == "connected"


async def test_who_comes_later_hears_what_is_said_now(world: World) -> None:
    await world.listener(voice=False)  # keeps the session's subscription to the video
    first, talker = await world.listener(), await world.talker()
    await talker.talk(WORDS.__getitem__, 10)
    await first.hear(10)
    await first.close()
    await talker.talk(WORDS.__getitem__, 40, first=10)
    second = await world.listener()
    await talker.talk(WORDS.__getitem__, 20, first=50)
    await second.hear(15)
    assert {packet.payload for packet in second.voice.packets} <= set(WORDS[50:70])


async def test_listeners_stay_when_the_speaker_goes(world: World) -> None:
    listener, talker = await world.listener(), await world.talker()
    await talker.talk(WORDS.__getitem__, 10)
    await listener.hear(10)
    answer = await world.client.delete(talker.url, headers=talker.headers)
    assert answer.status_code == 200
    await world.reaches('mien_whip_uplinks_gone_total{reason="left"}', 1)
    pictures = len(listener.picture.packets)
    await until(lambda: len(listener.picture.packets) > pictures + 20)
    assert listener.peer.connectionState == "connected" and len(listener.voice.packets) == 10
    gone = await world.client.delete(talker.url, headers=talker.headers)
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:mien:problem:speaker-not-found")


def motion(sequence: int) -> bytes:
    return MotionPacket(sequence, 1000 + sequence, Keypoints.from_rows(np.zeros(60, np.float32))).pack()


async def test_motion_reaches_the_generator_s_inbox_by_the_gateway_s_rules(world: World) -> None:
    talker = await world.talker()
    channel = await talker.channel_open()
    received: list[bytes] = []
    read = world.publisher._inbox.read

    async def reading() -> list[object]:
        messages = await read()
        received.extend(message.packet for message in messages if hasattr(message, "packet"))
        return list(messages)

    world.publisher._inbox.read = reading  # type: ignore[method-assign,assignment]
    sent = [motion(number) for number in range(20)]
    for packet in sent:
        channel.send(packet)
        await asyncio.sleep(0.02)
    channel.send(sent[-1])
    channel.send("a text")
    channel.send(bytes([1, 0, 0]))
    for result in ("duplicate", "text", "length"):
        await world.reaches(f'mien_whip_motion_packets_total{{result="{result}"}}', 1)
    await until(lambda: received[-1:] == sent[-1:])
    assert len(received) >= 10 and received == [packet for packet in sent if packet in received]
    assert await world.metric('mien_whip_motion_packets_total{result="accepted"}') == 20


async def test_motion_alone_is_an_uplink(world: World) -> None:
    talker = await world.talker(voice=False)
    channel = await talker.channel_open()
    channel.send(motion(1))
    await world.reaches('mien_whip_motion_packets_total{result="accepted"}', 1)


@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("chat", {}),
        ("motion", {"ordered": True}),
        ("motion", {"maxRetransmits": 3}),
        ("motion", {"maxPacketLifeTime": 9}),
    ],
)
async def test_another_data_channel_is_not_taken(world: World, label: str, options: dict[str, object]) -> None:
    talker = Talker(world.client, SESSION.session_id, label=None)
    world.stack.push_async_callback(talker.close)
    values: dict[str, object] = {"ordered": False} | ({} if "maxPacketLifeTime" in options else {"maxRetransmits": 0})
    channel = talker.peer.createDataChannel(label, **values | options)
    await talker.join()
    await world.reaches('mien_whip_refused_total{reason="channel"}', 1)
    await talker.talk(WORDS.__getitem__, 3)
    assert channel.readyState == "connecting"
    assert await world.metric('mien_voice_packets_received_total{result="accepted"}') == 3


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "token-missing"),
        (bearer("another"), 403, "token-not-granted"),
        (bearer(SESSION.session_id, frozenset({Grant.WATCH})), 403, "token-not-granted"),
    ],
)
async def test_only_the_session_s_speaker_may_speak(
    world: World, headers: dict[str, str], status: int, code: str
) -> None:
    talker = Talker(world.client, SESSION.session_id)
    world.stack.push_async_callback(talker.close)
    talker.headers = headers
    answer = await talker.offer()
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:mien:problem:{code}")


async def test_the_end_of_the_session_ends_the_uplink(world: World) -> None:
    talker = await world.talker()
    await Registry(world.publisher.redis).end_session(SESSION.session_id)
    await world.reaches('mien_whip_uplinks_gone_total{reason="session_ended"}', 1)
    await until(lambda: talker.peer.connectionState == "closed")


async def test_one_speaker_more_than_allowed_is_refused(
    world: World, redis_server: EmbeddedRedis, run_app: RunApp
) -> None:
    url = await run_app(create_app(settings(redis_server, max_speakers=1)))
    client = await world.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))
    other = SESSION.model_copy(update={"session_id": "other"})
    await Registry(world.publisher.redis).keep_alive(other)
    await world.talker(client)
    talker = Talker(client, "other")
    world.stack.push_async_callback(talker.close)
    answer = await talker.offer()
    assert (answer.status_code, answer.json()["detail"]) == (503, "this service has as many speakers as allowed")
    await world.talker(client)  # a newer uplink of the same session replaces the one that is here


async def test_an_uplink_over_a_websocket_replaces_one_over_whip(world: World) -> None:
    talker = await world.talker()
    await Registry(world.publisher.redis).claim_uplink(SESSION.session_id, "a WebSocket of a gateway")
    await world.reaches('mien_whip_uplinks_gone_total{reason="replaced"}', 1)
    answer = await world.client.patch(talker.url, content="", headers=FRAGMENT | talker.headers)
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:mien:problem:uplink-ended")


async def test_an_uplink_over_whip_claims_the_session_and_keeps_it(world: World) -> None:
    registry = Registry(world.publisher.redis)
    before = (await registry.uplink_states([SESSION.session_id]))[SESSION.session_id].connection_id
    await world.talker()
    after = (await registry.uplink_states([SESSION.session_id]))[SESSION.session_id].connection_id
    assert before is None and after is not None


FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
CANDIDATE = "a=candidate:1 1 udp 2122260223 192.0.2.1 60001 typ host"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (f"a=mid:0\r\n{CANDIDATE}\r\n", {}, 204),
        (f"a=mid:0\r\n{CANDIDATE}\r\n", {"If-Match": "*"}, 204),
        (f"a=mid:0\r\n{CANDIDATE}\r\n", {"If-Match": '"tag"'}, 412),
        ("a=ice-ufrag:else\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n", {}, 422),
        ("nothing", {}, 400),
        ("a=end-of-candidates\r\n", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_trickle_and_entity_tags_are_as_over_whep(
    world: World, content: str, headers: dict[str, str], status: int
) -> None:
    talker = await world.talker()
    answer = await world.client.patch(talker.url, content=content, headers=FRAGMENT | talker.headers | headers)
    assert answer.status_code == status
    options = await world.client.options(talker.url)
    assert (options.status_code, options.headers["accept-patch"]) == (204, FRAGMENT["Content-Type"])


async def test_the_speaker_gets_receiver_reports(world: World) -> None:
    talker = await world.talker()
    reports: list[RtcpRrPacket] = []
    handle = talker.sender._handle_rtcp_packet

    async def take(packet: object) -> None:
        if isinstance(packet, RtcpRrPacket):
            reports.append(packet)
        await handle(packet)

    talker.sender._handle_rtcp_packet = take
    async with asyncio.timeout(20):
        while not reports or not reports[-1].reports[0].lsr:
            await talker.talk(WORDS.__getitem__, 10)
    (block,) = reports[-1].reports
    assert (block.ssrc, block.packets_lost) == (talker.sender._ssrc, 0)
    assert block.dlsr > 0
