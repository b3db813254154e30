"""Rooms on several gateways, while connections, gateways and Redis fail; and clients that do harm."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from integration.gateway.room_calls import PATIENCE_S, bearer, closed, events_of, joined, new_room, next_event, say
from outages import hanging, stopped
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from mien_client.launcher import free_port
from mien_gateway.room_connection import CloseCode
from mien_gateway.room_talk import MAX_MESSAGE_BYTES
from mien_shared.bus import keys
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.room_messages import EventType, RoomEvent
from mien_shared.bus.room_scripts import LOG_CAP
from mien_shared.bus.rooms import Rooms
from mien_shared.http.tokens import TokenIssuer

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
API_KEY = "an operator's key of thirty-two bytes or more"


async def entered(socket: ClientConnection) -> int:
    """The sequence number of the state with which a connection begins."""
    return int((await next_event(socket, "room"))["sequence"])


async def test_a_newer_connection_replaces_the_older_on_another_gateway(start_gateway: Any) -> None:
    one, two = await start_gateway(), await start_gateway()
    room_id = await new_room(one)
    first = await joined(one, room_id, "ada")
    again = await joined(two, room_id, "ada", name="Ada on her phone")
    assert again["participant_id"] == first["participant_id"]
    async with events_of(one, room_id, first["token"]) as older:
        await entered(older)
        async with events_of(two, room_id, again["token"]) as newer:
            await entered(newer)
            code, seen = await closed(older)
            assert code == CloseCode.REPLACED and "participant_left" not in seen
            await say(newer, type="hand", raised=True)
            assert (await next_event(newer))["participant"]["name"] == "Ada on her phone"


async def test_events_and_moderation_cross_gateways(start_gateway: Any) -> None:
    one, two = await start_gateway(), await start_gateway()
    room_id = await new_room(one)
    ada, bob = await joined(one, room_id, "ada"), await joined(two, room_id, "bob")
    async with events_of(one, room_id, ada["token"]) as hers, events_of(two, room_id, bob["token"]) as his:
        await entered(hers)
        await entered(his)
        for number in range(20):
            await say(hers if number % 2 else his, type="message", text=str(number))
            for socket in (hers, his):
                assert (await next_event(socket, "message"))["text"] == str(number)
        await one.http.delete(f"/v1/rooms/{room_id}/participants/{bob['participant_id']}")
        assert (await closed(his))[0] == CloseCode.REMOVED


async def test_a_client_that_was_away_misses_nothing(start_gateway: Any, redis: Any) -> None:
    one, two = await start_gateway(), await start_gateway()
    room_id = await new_room(one)
    ada, bob = await joined(one, room_id, "ada"), await joined(two, room_id, "bob")
    async with events_of(one, room_id, ada["token"]) as hers:
        await entered(hers)
        async with events_of(two, room_id, bob["token"]) as his:
            since = await entered(his)
            his.transport.abort()
        sent = [str(number) for number in range(12)]
        for text in sent:
            await say(hers, type="message", text=text)
            await next_event(hers, "message")
        # As after thirty seconds: bob was last seen then, and the events are that old. Both are within their limits.
        await redis.hset(keys.room_presence(room_id), bob["participant_id"], f"{(await now_ms(redis)) - 30_000} ")
        async with events_of(one, room_id, bob["token"], since) as his:
            assert await next_event(his) == {"type": "resumed", "sequence": since}
            missed = [await next_event(his) for _ in sent]
            assert [event["text"] for event in missed] == sent
            numbers = [event["sequence"] for event in missed]
            assert numbers == sorted(set(numbers)) and numbers[0] > since
            await say(his, type="message", text="back")
            assert (await next_event(his))["text"] == "back", "and nothing twice"


async def now_ms(redis: Any) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds * 1000 + microseconds // 1000)


@pytest.mark.parametrize("loss", ["overrun", "expired", "unknown", "future", "before the join"])
async def test_a_log_that_does_not_reach_back_gives_the_state(start_gateway: Any, redis: Any, loss: str) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada, bob = await joined(gateway, room_id, "ada"), await joined(gateway, room_id, "bob")
    async with events_of(gateway, room_id, ada["token"]) as hers, events_of(gateway, room_id, bob["token"]) as his:
        await entered(hers)
        since = await entered(his)
    match loss:
        case "overrun":
            desk_event = json.dumps({"type": "message", "text": "x", "participant_id": ada["participant_id"]})
            for number in range(LOG_CAP + 1):
                await redis.xadd(
                    keys.room_events(room_id),
                    {"p": since + number, "e": desk_event},
                    id=f"{since + number + 1}-0",
                    maxlen=LOG_CAP,
                    approximate=False,
                )
            await redis.set(keys.room_sequence(room_id), since + LOG_CAP + 1, ex=60)
        case "expired":
            room = (await Rooms(redis).read(room_id)).record
            assert room is not None
            event = RoomEvent(type=EventType.MESSAGE, participant_id=ada["participant_id"], text="missed")
            await Rooms(redis).say(room, event)
            await redis.delete(keys.room_events(room_id))
        case "unknown":
            since = 1
        case "future":
            since += 10**9
        case _:
            since -= 10**6
    async with events_of(gateway, room_id, bob["token"], since) as his:
        assert (await next_event(his))["type"] == "room"
        await say(his, type="message", text="here")
        assert (await next_event(his, "message"))["text"] == "here"


async def test_since_must_be_a_number(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    for since in ("-1", "x", "1" * 17, ""):
        with pytest.raises(InvalidStatus) as refused:
            await events_of(gateway, room_id, ada["token"], since)
        assert refused.value.response.status_code == 422


@pytest.mark.parametrize("outage", [stopped, hanging])
async def test_redis_comes_back_and_everyone_is_still_there(
    start_gateway: Any, start_generator: Any, redis_server: EmbeddedRedis, outage: Any
) -> None:
    one, two = await start_gateway(), await start_gateway()
    await start_generator()
    room_id = await new_room(one, name="demo", lobby=True)
    ada = await joined(one, room_id, "ada", "publish", "watch", "moderate", avatar_id="someone")
    bob = await joined(two, room_id, "bob", "moderate")
    async with events_of(one, room_id, ada["token"]) as hers, events_of(two, room_id, bob["token"]) as his:
        await entered(hers)
        await entered(his)
        await say(hers, type="hand", raised=True)
        await next_event(his, "participant_updated")
        async with outage(redis_server):
            await say(hers, type="message", text="lost")
            assert (await next_event(hers, "error"))["code"] == "redis-unavailable"
        await one.becomes_ready()
        await two.becomes_ready()
        path = f"/v1/rooms/{room_id}"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await two.http.get(path)
                if answer.status_code == 200 and len(answer.json()["participants"]) == 2:
                    break
                await asyncio.sleep(0.05)
        found = {one["identity"]: one for one in answer.json()["participants"]}
        assert found["ada"]["hand"] and found["ada"]["session_id"] == ada["session"]["session_id"]
        assert answer.json()["name"] == "demo" and answer.json()["lobby"]
        await say(his, type="message", text="are you there?")
        async with asyncio.timeout(PATIENCE_S):
            while (await next_event(hers, "message"))["text"] != "are you there?":
                pass
        assert await new_room(one, name="demo") == room_id
        assert (await one.http.get(f"/v1/sessions/{ada['session']['session_id']}")).status_code == 200
        assert await one.metric("mien_room_connections") == 1


async def test_a_new_redis_whose_clock_is_behind_starts_everyone_anew(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    async with events_of(gateway, room_id, ada["token"]) as hers:
        await entered(hers)
        # The log of the server before, which was an hour ahead, ended with a number that is higher than any to come.
        event = RoomEvent(type=EventType.MESSAGE, participant_id=ada["participant_id"], text="from the future")
        ahead = await now_ms(redis) + 3_600_000
        await redis.set(keys.room_sequence(room_id), ahead, ex=60)
        await redis.xadd(keys.room_events(room_id), {"p": ahead - 1, "e": event.to_bytes()}, id=f"{ahead}-0")
        await next_event(hers)
        await redis.delete(keys.room_events(room_id), keys.room_sequence(room_id))
        await say(hers, type="message", text="lost with the old numbers")
        assert await entered(hers) < ahead
        await say(hers, type="message", text="now")
        assert (await next_event(hers, "message"))["text"] == "now"


async def test_what_has_ended_does_not_come_back(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada, bob = await joined(gateway, room_id, "ada"), await joined(gateway, room_id, "bob")
    async with events_of(gateway, room_id, ada["token"]) as hers, events_of(gateway, room_id, bob["token"]) as his:
        await entered(hers)
        await entered(his)
        # Another gateway removed bob, and its event was lost.
        await redis.hdel(keys.room_participants(room_id), bob["participant_id"])
        await redis.zadd(keys.room_gone(room_id), {bob["participant_id"]: await now_ms(redis)})
        assert (await closed(his))[0] == CloseCode.LEFT
        # The same with the room.
        await redis.delete(keys.room(room_id), keys.room_participants(room_id), keys.room_presence(room_id))
        await redis.set(keys.room_ended(room_id), "ended", ex=60)
        assert (await closed(hers))[0] == CloseCode.ROOM_ENDED
    assert await redis.exists(keys.room(room_id), keys.room_participants(room_id)) == 0


async def test_a_killed_gateway_s_clients_go_on_at_another(
    start_gateway: Any, redis_server: EmbeddedRedis, tmp_path: Any
) -> None:
    other = await start_gateway()
    room_id = await new_room(other)
    ada, bob = await joined(other, room_id, "ada"), await joined(other, room_id, "bob")
    port = free_port()
    environment = os.environ | {
        "REDIS_URL": redis_server.url,
        "MIEN_PORT": str(port),
        "MIEN_TOKEN_SECRET": SECRET,
        "MIEN_API_KEYS": API_KEY,
        "MIEN_AVATAR_STORE": f"file:{tmp_path / 'avatars'}",
    }
    doomed = SimpleNamespace(url=f"http://127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mien_gateway", env=environment)
    try:
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(60):
            while True:
                try:
                    if (await http.get(f"{doomed.url}/readyz")).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)
        async with events_of(other, room_id, ada["token"]) as hers:
            await entered(hers)
            async with events_of(doomed, room_id, bob["token"]) as his:
                since = await entered(his)
                process.send_signal(signal.SIGKILL)
                assert (await closed(his))[0] is None
            await say(hers, type="message", text="while he was away")
            async with events_of(other, room_id, bob["token"], since) as his:
                assert (await next_event(his))["type"] == "resumed"
                assert (await next_event(his, "message"))["text"] == "while he was away"
                await say(his, type="message", text="back")
                assert (await next_event(hers, "participant_joined"))["participant"]["identity"] == "bob"
                told = [await next_event(hers), await next_event(hers)]
                assert [event["text"] for event in told] == ["while he was away", "back"], "bob never left"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_bad_tokens_are_refused_before_the_handshake(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id, other_id = await new_room(gateway), await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    issuer = TokenIssuer(SECRET)
    tokens = {
        "garbage": 401,
        ada["token"][:-4] + "AAAA": 401,
        issuer.issue(ada["participant_id"], [], now_s=0, room_id=room_id): 401,
        issuer.issue("session", []): 403,
        issuer.issue(ada["participant_id"], [], room_id=other_id): 403,
        issuer.issue("somebody", [], room_id=room_id): 404,
    }
    for token, status in tokens.items():
        with pytest.raises(InvalidStatus) as refused:
            await events_of(gateway, room_id, token)
        assert refused.value.response.status_code == status, token
    with pytest.raises(InvalidStatus) as refused:
        await events_of(gateway, "another", issuer.issue("a", [], room_id="another"))
    assert refused.value.response.status_code == 404


async def test_messages_that_cannot_be_read_are_named_and_nothing_else_is_lost(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    async with events_of(gateway, room_id, ada["token"]) as socket:
        await entered(socket)
        bad: list[str | bytes] = ["{", "[]", '{"type": "fly"}', '{"type": "hand", "raised": "yes"}', b"\x00\x01"]
        bad += [json.dumps({"type": "message", "text": "x" * 2001}), json.dumps({"type": "message", "text": ""})]
        bad += [json.dumps({"type": "reaction", "reaction": "x" * 33}), json.dumps({"type": "leave", "extra": 1})]
        for message in bad:
            await socket.send(message)
            refused = await next_event(socket)
            assert (refused["type"], refused["code"]) == ("error", "invalid-request"), message
        await say(socket, type="message", text="𝕏" * 2000)
        assert (await next_event(socket))["text"] == "𝕏" * 2000
    assert await gateway.metric("mien_room_messages_total", result="invalid-request") == len(bad)


async def test_huge_messages_and_floods_close_the_connection(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada, bob = await joined(gateway, room_id, "ada"), await joined(gateway, room_id, "bob")
    async with events_of(gateway, room_id, bob["token"]) as his:
        await entered(his)
        async with events_of(gateway, room_id, ada["token"]) as hers:
            await entered(hers)
            await hers.send("x" * (MAX_MESSAGE_BYTES + 1))
            assert (await closed(hers))[0] == CloseCode.TOO_BIG
        async with events_of(gateway, room_id, ada["token"]) as hers:
            await entered(hers)
            flooding = asyncio.create_task(flood(hers))
            code, seen = await closed(hers)
            flooding.cancel()
            assert code == CloseCode.FLOOD and seen.count("error") == 1
        await say(his, type="message", text="quiet again")
        taken = 0
        while (await next_event(his, "message"))["text"] != "quiet again":
            taken += 1
        assert taken < 60, "the flood was not passed on"
    await gateway.reaches(1, "mien_room_connections_closed_total", code="1008")


async def flood(socket: ClientConnection) -> None:
    while True:
        await say(socket, type="message", text="flood")


async def test_a_client_that_does_not_read_is_cut_off_and_others_go_on(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada, bob = await joined(gateway, room_id, "ada"), await joined(gateway, room_id, "bob")
    async with events_of(gateway, room_id, ada["token"]) as hers:
        await entered(hers)
        async with events_of(gateway, room_id, bob["token"], compression=None, max_queue=1) as his:
            his.transport.pause_reading()
            await next_event(hers, "participant_joined")
            reading = asyncio.create_task(drain(hers))
            rooms = Rooms(redis)
            room = (await rooms.read(room_id)).record
            assert room is not None
            chat = RoomEvent(type=EventType.MESSAGE, participant_id=ada["participant_id"], text="x" * 2000)
            async with asyncio.timeout(60):
                while await gateway.metric("mien_room_connections_closed_total", code="4408") == 0:
                    for _ in range(100):
                        await rooms.say(room, chat)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await say(hers, type="message", text="go on")
        async with asyncio.timeout(PATIENCE_S):
            while (await next_event(hers, "message"))["text"] != "go on":
                pass


async def drain(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


async def test_a_participant_s_viewers_lose_their_right_with_it(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    assert (await gateway.anyone.get("/v1/ice-servers", headers=bearer(ada))).status_code == 200
    path = f"/v1/rooms/{room_id}/participants/{ada['participant_id']}"
    assert (await gateway.anyone.delete(path, headers=bearer(ada))).status_code == 204
    for called in (f"/v1/rooms/{room_id}", path, "/v1/avatars/someone/picture"):
        assert (await gateway.anyone.get(called, headers=bearer(ada))).status_code in {403, 404}
