"""A room over signaling, with real Redis and real peers: one connection brings everyone's picture and voice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import httpx
import pytest
import pytest_asyncio
from aiortc import RTCRtpSender
from integration.room_peers import (
    NAMES,
    PATIENCE_S,
    ROOM,
    RoomWorld,
    Watcher,
    begins_with_idr,
    headers_of,
    is_one_stream,
    picture_width,
    record_of,
    width_of,
    word_of,
)
from integration.test_signaling_media import RunApp, settings
from integration.voice_peers import FRAME_TICKS, SDP, Talker, bearer, until

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.room_messages import ParticipantState
from mien_shared.bus.viewers import Viewers
from mien_shared.bus.voice import VoicePacket, VoicePublisher
from mien_shared.http.principal import Grant
from mien_signaling.app import create_app

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[RoomWorld]:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        app = create_app(settings(redis_server))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=await run_app(app), timeout=PATIENCE_S))
        yield RoomWorld(redis, stack, client)


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def speak(name: str, talker: Talker) -> None:
    """Speak until cancelled."""
    number = 0
    while True:
        talker.say(word_of(name)(number))
        number += 1
        await asyncio.sleep(0.02)


async def test_three_see_and_hear_each_other_over_one_connection_each(world: RoomWorld) -> None:
    names = ("ada", "bob", "cy")
    for name in names:
        await world.enter(name)
    talkers = {name: await world.talker(name) for name in names}
    watchers = [await world.watcher(name, 2) for name in names]
    speaking = [asyncio.create_task(speak(name, talker)) for name, talker in talkers.items()]
    for watcher in watchers:
        others = [name for name in names if name != watcher.name]
        await world.shows(watcher.name, others)
        assert [f"a=msid:slot-{number} " in watcher.answer for number in (0, 1, 2)] == [True, True, False]
        for slot, name in enumerate(others):
            await until(lambda: watcher.sees(slot, name) and watcher.hears(slot, name), PATIENCE_S)  # noqa: B023
            packets = watcher.voices[slot].packets
            assert {packet.payload[0] for packet in packets} == {names.index(name)}, "one voice in a slot"
    for task in speaking:
        task.cancel()


async def test_who_speaks_gets_a_slot_and_the_receiver_sees_one_stream(world: RoomWorld) -> None:
    """Five in the room, two slots: a change of the participant is no change for the receiver."""
    for name in NAMES:
        await world.enter(name)
    for publisher in world.publishers.values():
        publisher.latency_s = 0.05
    talkers = {name: await world.talker(name) for name in NAMES[1:]}
    watcher = await world.watcher("ada", 2)
    await world.shows("ada", ["bob", "cy"])
    speaking = asyncio.create_task(speak("bob", talkers["bob"]))
    await until(lambda: watcher.sees(0, "bob") and watcher.sees(1, "cy") and watcher.hears(0, "bob"), PATIENCE_S)
    await until(lambda: bool(watcher.pictures[1].reports), PATIENCE_S)
    late = asyncio.create_task(speak("eve", talkers["eve"]))
    await world.shows("ada", ["bob", "eve"])
    await until(lambda: watcher.sees(1, "eve") and watcher.hears(1, "eve"), PATIENCE_S)
    reports = len(watcher.pictures[1].reports)
    await until(lambda: len(watcher.pictures[1].reports) > reports, PATIENCE_S)
    assert [one.participant_id for one in (await world.live()).speakers] in (["bob", "eve"], ["eve", "bob"])

    for packets in (watcher.pictures[1].packets, watcher.voices[0].packets, watcher.voices[1].packets):
        assert is_one_stream(packets)
    packets = watcher.pictures[1].packets
    starts = [number for number, packet in enumerate(packets) if begins_with_idr(packet)]
    before = [start for start in starts if picture_width(packets[start : start + 60]) == width_of("cy")]
    assert before and len(before) < len(starts), "the first packet of the new participant begins an IDR"
    assert picture_width(packets[: starts[len(before)]]) == width_of("cy")
    assert picture_width(packets[starts[len(before)] :]) == width_of("eve")
    # What the reports say of two moments, before and after the change, is as far apart as they are.
    first, last = watcher.pictures[1].reports[0], watcher.pictures[1].reports[-1]
    ticks = (last.timestamp - first.timestamp + 2**31) % 2**32 - 2**31
    assert ticks / 90_000 == pytest.approx(last.unix_s - first.unix_s, abs=0.5)
    assert await world.metric("mien_room_slot_changes_total") >= 3
    for task in (speaking, late):
        task.cancel()


async def test_only_the_three_loudest_are_sent(world: RoomWorld) -> None:
    """Four speak; the quietest is heard by nobody, and its silence is no loss for its receivers."""
    for name in NAMES:
        await world.enter(name)
    watcher = await world.watcher("ada", 4)
    sessions = {name: world.people[name].session_id for name in NAMES[1:]}
    loudness = {"bob": 20, "cy": 30, "dee": 40, "eve": 70}
    publisher, stopping = VoicePublisher(world.redis, lambda _: None), asyncio.Event()

    async def talk() -> None:
        for number in count():
            for name, level in loudness.items():
                run, payload = name.encode().ljust(8), word_of(name)(number)
                timestamp = number * FRAME_TICKS & 0xFFFFFFFF
                packet = VoicePacket(run, number & 0xFFFF, timestamp, False, level, None, payload)
                publisher.push(sessions[name] or "", packet)
            await publisher.flush()
            if stopping.is_set():
                return
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(talk())
    await world.shows("ada", NAMES[1:])
    await until(lambda: all(watcher.hears(slot, name) for slot, name in ((0, "bob"), (1, "cy"), (2, "dee"))), 30)
    heard = -1
    async with asyncio.timeout(PATIENCE_S):  # before all four had begun, it may have been one of three
        while len(watcher.voices[3].packets) != heard:
            heard, loud = len(watcher.voices[3].packets), len(watcher.voices[0].packets)
            await until(lambda: len(watcher.voices[0].packets) > loud + 50, PATIENCE_S)  # noqa: B023
        while {one.participant_id for one in (await world.live()).speakers} != {"bob", "cy", "dee"}:
            await asyncio.sleep(0.05)
    assert await world.metric('mien_voice_packets_dropped_total{reason="quiet"}') > 0
    loudness["eve"] = 5
    since = len(watcher.voices[3].packets)
    await until(lambda: watcher.hears(3, "eve", since), PATIENCE_S)
    assert is_one_stream(watcher.voices[3].packets)
    stopping.set()
    await talking


async def test_comings_and_goings(world: RoomWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A participant joins, gets another avatar, leaves; the room ends."""
    polls = []
    monkeypatch.setattr(RTCRtpSender, "_next_encoded_frame", lambda *arguments: polls.append(arguments))
    await world.enter("ada")
    watcher = await world.watcher("ada", 2)
    assert await world.shown_to("ada") == [None, None]
    await world.write(record_of("dee", session_id=None, avatar_id=None))  # a listener
    await world.write(record_of("eve", state=ParticipantState.WAITING))
    await world.enter("bob")
    await world.shows("ada", ["bob", None])
    await until(lambda: watcher.sees(0, "bob"), PATIENCE_S)
    idle = len(watcher.pictures[1].packets)
    assert idle == 0 and not watcher.pictures[1].reports, "nothing is sent in a free slot"
    assert polls == [], "aiortc asks no track for a picture, fifty times a second in a slot without one"
    await world.enter("cy")
    await world.shows("ada", ["bob", "cy"])
    # The same participant with another avatar, in another session.
    await world.enter("bob", session_id="another", joined_at_ms=0)
    frames = len(watcher.pictures[0].packets)
    await until(lambda: any(begins_with_idr(one) for one in watcher.pictures[0].packets[frames:]), PATIENCE_S)
    await world.write(gone=["bob"])
    await world.shows("ada", [None, "cy"])
    await world.write(end="ended")
    await until(lambda: watcher.peer.connectionState in {"closed", "failed"}, PATIENCE_S)
    assert (await world.client.delete(watcher.url, headers=watcher.headers)).status_code == 404
    assert await world.metric('mien_viewers_gone_total{reason="session_ended"}') == 1
    async with asyncio.timeout(PATIENCE_S):
        while await world.metric("mien_watched_sessions"):
            await asyncio.sleep(0.1)
    assert await world.metric("mien_watched_rooms") == 0


async def test_who_may_watch_and_what_a_location_answers(world: RoomWorld) -> None:
    for name in ("ada", "bob"):
        await world.enter(name)
    await world.write(
        record_of("dee", session_id=None, avatar_id=None), record_of("eve", state=ParticipantState.WAITING)
    )
    expected = {
        "without a token": ({"X-Nobody": "1"}, 401, "token-missing"),
        "without the grant": (headers_of("ada", Grant.PUBLISH), 403, "token-not-granted"),
        "of another room": (headers_of("ada", room_id="another"), 403, "token-not-granted"),
        "a session's": (bearer("avatar-of-bob", frozenset({Grant.WATCH})), 403, "token-not-granted"),
        "in the lobby": (headers_of("eve"), 403, "not-admitted"),
        "removed": (headers_of("cy"), 404, "participant-not-found"),
    }
    for who, (headers, status, code) in expected.items():
        refused = Watcher(world.client, "ada", 1)
        refused.headers = headers
        answer = await refused.post()
        await refused.close()
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:mien:problem:{code}"), who
    for headers, status, code in (
        (headers_of("dee"), 409, "no-avatar"),
        (headers_of("ada", Grant.WATCH), 403, "token-not-granted"),
        (headers_of("eve"), 403, "not-admitted"),
    ):
        talker = Talker(world.client, f"rooms/{ROOM}", headers=headers)
        answer = await talker.offer()
        await talker.close()
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:mien:problem:{code}")
    speaking = await world.talker("ada")
    assert speaking.url.startswith(f"/v1/whip/rooms/{ROOM}/")
    assert (await world.client.delete(speaking.url, headers=headers_of("bob"))).status_code == 403
    assert (await world.client.delete(speaking.url, headers=headers_of("ada"))).status_code == 200
    assert problem(await world.client.delete(speaking.url, headers=headers_of("ada"))) == (404, "speaker-not-found")

    first = await world.watcher("ada", 1)
    assert problem(await world.client.delete(first.url, headers=headers_of("bob"))) == (403, "token-not-granted")
    second = await world.watcher("ada", 1)
    await until(lambda: first.peer.connectionState in {"closed", "failed"}, PATIENCE_S)
    assert problem(await world.client.delete(first.url, headers=first.headers)) == (410, "viewer-replaced")
    assert (await world.live()).slots["ada"].viewer_id == second.viewer_id
    viewers = [one.viewer_id for one in await Viewers(world.redis).of_session("avatar-of-bob")]
    async with asyncio.timeout(PATIENCE_S):
        while second.viewer_id not in viewers:
            viewers = [one.viewer_id for one in await Viewers(world.redis).of_session("avatar-of-bob")]
            await asyncio.sleep(0.1)
    await Viewers(world.redis).end("avatar-of-bob", second.viewer_id)
    await until(lambda: second.peer.connectionState in {"closed", "failed"}, PATIENCE_S)
    assert problem(await world.client.delete(second.url, headers=second.headers)) == (410, "viewer-ended")
    third = await world.watcher("ada", 1)
    await world.write(gone=["ada"])
    await until(lambda: third.peer.connectionState in {"closed", "failed"}, PATIENCE_S)
    assert await world.metric('mien_viewers_gone_total{reason="departed"}') == 1


async def test_a_newer_connection_on_another_service_replaces_the_older(
    world: RoomWorld, redis_server: EmbeddedRedis, run_app: RunApp
) -> None:
    for name in ("ada", "bob"):
        await world.enter(name)
    url = await run_app(create_app(settings(redis_server)))
    other = await world.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE_S))
    # One speaks over the other service, and is heard here.
    talker = await world.talker("bob", other)
    first = await world.watcher("ada", 1)
    speaking = asyncio.create_task(speak("bob", talker))
    await until(lambda: first.sees(0, "bob") and first.hears(0, "bob"), PATIENCE_S)
    second = await world.watcher("ada", 1, other)
    await until(lambda: first.peer.connectionState in {"closed", "failed"}, PATIENCE_S)
    assert problem(await world.client.delete(first.url, headers=first.headers)) == (410, "viewer-replaced")
    await until(lambda: second.sees(0, "bob") and second.hears(0, "bob"), PATIENCE_S)
    assert (await world.live()).slots["ada"].viewer_id == second.viewer_id
    speaking.cancel()


async def test_a_redis_that_came_back_empty_changes_nothing_for_who_watches(world: RoomWorld) -> None:
    for name in ("ada", "bob"):
        await world.enter(name)
    watcher = await world.watcher("ada", 1)
    await until(lambda: watcher.sees(0, "bob"), PATIENCE_S)
    await world.redis.flushall()
    people = list(world.people.values())
    async with asyncio.timeout(PATIENCE_S):  # the live state is written again at once, and only it is there
        while await world.shown_to("ada") != ["bob"]:
            await asyncio.sleep(0.05)
    await world.write(people[0])  # a gateway restores one participant, then the other one
    await world.enter("cy")
    async with asyncio.timeout(PATIENCE_S):  # signaling has read the room without him
        while await world.metric("mien_watched_sessions") < 3:
            await asyncio.sleep(0.05)
    assert await world.shown_to("ada") == ["bob"], "who has not left stays"
    await world.write(people[1])
    await until(lambda: watcher.sees(0, "bob"), PATIENCE_S)
    changes = await world.metric("mien_room_slot_changes_total")
    assert changes == 1


async def test_a_new_offer_on_the_connection_adds_slots(world: RoomWorld) -> None:
    for name in ("ada", "bob", "cy"):
        await world.enter(name)
    talker = await world.talker("cy")
    watcher = await world.watcher("ada", 1)
    await until(lambda: watcher.sees(0, "bob"), PATIENCE_S)
    speaking = asyncio.create_task(speak("cy", talker))
    await world.shows("ada", ["cy"])
    watcher.add_slot()
    answer = await watcher.offer_again()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/sdp"), answer.text
    assert "a=msid:slot-1 " in answer.text
    await world.shows("ada", ["cy", "bob"])
    await until(lambda: watcher.sees(1, "bob") and watcher.sees(0, "cy") and watcher.hears(0, "cy"), PATIENCE_S)
    assert is_one_stream(watcher.pictures[0].packets), "the others are undisturbed"
    # Another connection's offer, and one that is none.
    other = Watcher(world.client, "ada", 3)
    await other.peer.setLocalDescription(await other.peer.createOffer())
    for offer, expected in ((other.peer.localDescription.sdp, "unacceptable-offer"), ("hello", "unreadable-offer")):
        refused = await world.client.post(watcher.url, content=offer, headers=SDP | watcher.headers)
        assert problem(refused)[1] == expected, refused.text
    await other.close()
    since = len(watcher.pictures[0].packets)
    await until(lambda: len(watcher.pictures[0].packets) > since, PATIENCE_S)
    speaking.cancel()


async def test_limits(world: RoomWorld, redis_server: EmbeddedRedis, run_app: RunApp) -> None:
    for name in NAMES:
        await world.enter(name)
    few = settings(redis_server).model_copy(update={"max_room_slots": 2, "max_viewers": 3})
    url = await run_app(create_app(few))
    client = await world.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE_S))
    three = Watcher(client, "eve", 3)  # aiortc does not connect where a section is refused
    answer = await three.post()
    ports = [line.split()[1] for line in answer.text.splitlines() if line.startswith("m=")]
    await client.delete(answer.headers["location"], headers=three.headers)
    await three.close()
    assert [port == "0" for port in ports] == [False] * 4 + [True] * 2, "the third slot is refused in its place"
    watcher = await world.watcher("ada", 2, client)
    await world.shows("ada", ["bob", "cy"])
    await until(lambda: watcher.sees(1, "cy"), PATIENCE_S)
    other = await world.watcher("bob", 1, client)
    await until(lambda: other.sees(0, "ada"), PATIENCE_S)
    refused = Watcher(client, "cy", 1)
    assert problem(await refused.post()) == (503, "full")
    await refused.close()
    too_many = Watcher(world.client, "cy", 26)
    assert problem(await too_many.post()) == (422, "unacceptable-offer")
    await too_many.close()
