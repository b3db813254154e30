"""Rooms over REST and WebSocket, on a real Redis: who gets in, what everyone sees, and what moderators do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from integration.gateway.room_calls import bearer, closed, events_of, joined, new_room, next_event, say
from integration.gateway.test_gateway_uplink import packet, refused, uplink
from websockets.exceptions import InvalidStatus

from mien_gateway.room_connection import CloseCode
from mien_shared.bus import keys
from mien_shared.bus.messages import EndReason, StartSession, StopSession
from mien_shared.bus.registry import Registry

pytestmark = pytest.mark.integration


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_a_room_from_its_creation_to_its_end(start_gateway: Any) -> None:
    gateway = await start_gateway()
    made = await gateway.http.post("/v1/rooms", json={"name": "standup", "metadata": "mine", "max_participants": 3})
    room = made.json()
    assert made.headers["location"] == f"/v1/rooms/{room['room_id']}"
    assert (room["name"], room["metadata"], room["max_participants"], room["locked"]) == ("standup", "mine", 3, False)
    again = await gateway.http.post("/v1/rooms", json={"name": "standup", "metadata": "another"})
    assert (again.status_code, again.json()) == (201, room)
    assert (await gateway.http.get("/v1/rooms")).json() == {"rooms": [room]}
    path = f"/v1/rooms/{room['room_id']}"
    assert (await gateway.http.get(path)).json() == room | {"participants": []}
    assert (await gateway.http.patch(path, json={"locked": True})).json() == room | {"locked": True}
    assert (await gateway.http.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert problem(await gateway.http.request(method, path)) == (404, "room-not-found")
    assert (await gateway.http.get("/v1/rooms")).json() == {"rooms": []}
    assert await new_room(gateway, name="standup") != room["room_id"], "the name is free again"


async def test_two_participants_see_each_other(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada", avatar_id="someone")
    bob = await joined(gateway, room_id, "bob", "watch", name="Bob B")
    assert bob["session"] is None
    assert ada["room_url"] == f"{gateway.settings.public_url}/room/{room_id}#token={ada['token']}"
    async with events_of(gateway, room_id, ada["token"]) as hers:
        assert hers.subprotocol == "mien.room.v1"
        state = await next_event(hers)
        assert (state["type"], state["participant_id"]) == ("room", ada["participant_id"])
        assert [one["identity"] for one in state["participants"]] == ["ada"], "bob has not connected yet"
        assert state["participants"][0]["whep_url"] == ada["session"]["whep_url"]
        async with events_of(gateway, room_id, bob["token"]) as his:
            assert [one["identity"] for one in (await next_event(his))["participants"]] == ["ada", "bob"]
            came = await next_event(hers)
            assert (came["type"], came["participant"]["name"]) == ("participant_joined", "Bob B")
            assert came["sequence"] > state["sequence"]
            await say(his, type="message", text="hello")
            for socket in (hers, his):
                told = await next_event(socket, "message")
                assert (told["text"], told["participant_id"]) == ("hello", bob["participant_id"])
            await say(his, type="reaction", reaction="👍")
            assert (await next_event(hers))["reaction"] == "👍"
            await say(his, type="hand", raised=True)
            assert (await next_event(hers, "participant_updated"))["participant"]["hand"]
            await say(his, type="mute", muted=True)
            assert (await next_event(hers, "participant_updated"))["participant"]["muted"]
            await say(his, type="leave")
            assert (await closed(his))[0] == CloseCode.LEFT
        left = await next_event(hers, "participant_left")
        assert (left["participant_id"], left["reason"]) == (bob["participant_id"], "left")
        assert (await gateway.http.delete(f"/v1/rooms/{room_id}")).status_code == 204
        assert await closed(hers) == (CloseCode.ROOM_ENDED, ["bye"])
    started, stopped = await generator.is_told(2)
    assert isinstance(started, StartSession) and isinstance(stopped, StopSession)
    assert started.session.session_id == stopped.session_id == ada["session"]["session_id"]
    assert await Registry(generator.redis).end_reason(stopped.session_id) is EndReason.LEFT


async def test_a_participant_s_token_moves_its_own_avatar_and_no_other(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    room_id, other_id = await new_room(gateway), await new_room(gateway)
    ada = await joined(gateway, room_id, "ada", avatar_id="someone")
    bob = await joined(gateway, room_id, "bob", avatar_id="someone")
    eve = await joined(gateway, other_id, "eve", avatar_id="someone")
    session_id = ada["session"]["session_id"]
    async with uplink(gateway, session_id, ada["token"]) as socket:
        await socket.send(packet(0))
        await generator.gets(1)
    for stranger in (bob, eve):
        assert await refused(uplink(gateway, session_id, stranger["token"])) == (403, "token-not-granted")
    seen = {}
    for one in (ada, bob, eve):
        answer = await gateway.anyone.get(f"/v1/sessions/{session_id}", headers=bearer(one))
        picture = await gateway.anyone.get("/v1/avatars/someone/picture", headers=bearer(one))
        seen[one["participant_id"]] = answer.status_code, picture.status_code
    assert list(seen.values()) == [(200, 200), (200, 200), (403, 200)]
    assert (await gateway.anyone.delete(f"/v1/sessions/{session_id}", headers=bearer(ada))).status_code == 403


async def test_a_full_and_a_locked_room(start_gateway: Any) -> None:
    gateway = await start_gateway(max_participants=2)
    room_id = await new_room(gateway, max_participants=9)
    path = f"/v1/rooms/{room_id}/participants"
    await joined(gateway, room_id, "ada")
    bob = await joined(gateway, room_id, "bob")
    assert problem(await gateway.http.post(path, json={"identity": "eve"})) == (409, "room-full")
    assert (await joined(gateway, room_id, "bob"))["participant_id"] == bob["participant_id"], "bob is in already"
    assert (await gateway.http.delete(f"{path}/{bob['participant_id']}")).status_code == 204
    await gateway.http.patch(f"/v1/rooms/{room_id}", json={"locked": True})
    assert problem(await gateway.http.post(path, json={"identity": "eve"})) == (409, "room-locked")
    await joined(gateway, room_id, "ada")
    await gateway.http.patch(f"/v1/rooms/{room_id}", json={"locked": False})
    assert (await joined(gateway, room_id, "bob"))["participant_id"] != bob["participant_id"], "an id never comes back"


async def test_without_a_place_for_the_avatar_nobody_joins(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    path = f"/v1/rooms/{room_id}/participants"
    wish = {"identity": "ada", "avatar_id": "someone"}
    assert problem(await gateway.http.post(path, json=wish)) == (503, "no-generator")
    assert problem(await gateway.http.post(path, json=wish | {"avatar_id": "none"})) == (404, "avatar-not-found")
    assert problem(await gateway.http.post(path, json=wish | {"grants": ["watch"]})) == (422, "invalid-request")
    await start_generator(capacity=1)
    await joined(gateway, room_id, "ada", avatar_id="someone")
    assert problem(await gateway.http.post(path, json=wish | {"identity": "bob"})) == (503, "full")
    assert len((await gateway.http.get("/v1/sessions")).json()["sessions"]) == 1
    assert await gateway.metric("mien_room_joins_total", result="no-generator") == 1


async def test_the_lobby(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    room_id = await new_room(gateway, lobby=True)
    host = await joined(gateway, room_id, "host", "watch", "moderate")
    guest = await joined(gateway, room_id, "guest", avatar_id="someone")
    assert (host["state"], guest["state"], guest["session"]) == ("invited", "waiting", None)
    path = f"/v1/rooms/{room_id}/participants/{guest['participant_id']}"
    async with events_of(gateway, room_id, host["token"]) as hosts, events_of(gateway, room_id, guest["token"]) as his:
        assert (await next_event(his)) == {"type": "waiting", "participant_id": guest["participant_id"]}
        assert (await next_event(hosts, "participant_waiting"))["participant"]["identity"] == "guest"
        await say(hosts, type="message", text="not for the lobby")
        assert (await next_event(hosts, "message"))["text"] == "not for the lobby"
        await say(his, type="message", text="let me in")
        assert (await next_event(his))["code"] == "not-admitted"
        answer = await gateway.anyone.get(f"/v1/rooms/{room_id}", headers=bearer(guest))
        assert problem(answer) == (403, "not-admitted")
        answer = await gateway.anyone.patch(path, json={"admitted": True}, headers=bearer(guest))
        assert problem(answer) == (403, "not-admitted")
        admitted = await gateway.anyone.patch(path, json={"admitted": True}, headers=bearer(host))
        assert (admitted.status_code, admitted.json()["state"]) == (200, "active")
        state = await next_event(his)
        assert (state["type"], len(state["participants"])) == ("room", 2)
        assert state["participants"][1]["session_id"] == admitted.json()["session_id"] is not None
        assert (await next_event(hosts, "participant_joined"))["participant"]["identity"] == "guest"
        await say(his, type="message", text="thank you")
        assert (await next_event(hosts, "message"))["text"] == "thank you"


async def test_moderators_mute_and_remove_and_nobody_unmutes_another(start_gateway: Any) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    host = await joined(gateway, room_id, "host", "watch", "moderate")
    bob = await joined(gateway, room_id, "bob")
    eve = await joined(gateway, room_id, "eve")
    path = f"/v1/rooms/{room_id}/participants/{bob['participant_id']}"

    async def patch(by: dict[str, Any], **changes: Any) -> int:
        return int((await gateway.anyone.patch(path, json=changes, headers=bearer(by))).status_code)

    async with events_of(gateway, room_id, bob["token"]) as his:
        await next_event(his, "room")
        assert await patch(eve, muted=True) == 403
        assert await patch(host, muted=True) == 200
        assert (await next_event(his))["participant"]["muted"]
        assert await patch(host, muted=False) == 403
        assert (await gateway.http.patch(path, json={"muted": False})).status_code == 403
        assert await patch(bob, muted=False, hand=True) == 200
        assert await patch(host, hand=False) == 200
        assert await patch(host, avatar_id="someone") == 403
        assert (await gateway.anyone.delete(path, headers=bearer(eve))).status_code == 403
        assert (await gateway.anyone.delete(path, headers=bearer(host))).status_code == 204
        code, seen = await closed(his)
        assert code == CloseCode.REMOVED and seen[-1] == "participant_left"
    with pytest.raises(InvalidStatus) as refused:
        await events_of(gateway, room_id, bob["token"])
    assert refused.value.response.status_code == 404
    assert problem(await gateway.anyone.get(f"/v1/rooms/{room_id}", headers=bearer(bob))) == (
        404,
        "participant-not-found",
    )
    joined_again = await joined(gateway, room_id, "host", "watch")
    assert joined_again["participant_id"] == host["participant_id"]
    answer = await gateway.anyone.delete(f"/v1/rooms/{room_id}", headers=bearer(host))
    assert answer.status_code == 403, "the second join has taken the grant away"


async def test_another_avatar_is_another_session(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada")
    path = f"/v1/rooms/{room_id}/participants/{ada['participant_id']}"
    sessions = []
    for avatar_id in ("someone", "mien", "mien", None):
        answer = await gateway.anyone.patch(path, json={"avatar_id": avatar_id}, headers=bearer(ada))
        assert answer.status_code == 200, answer.text
        sessions.append(answer.json()["session_id"])
    first, second, same, none = sessions
    assert first != second == same and none is None
    registry = Registry(generator.redis)
    assert [await registry.end_reason(one) for one in (first, second)] == [EndReason.REPLACED, EndReason.REPLACED]
    assert await registry.sessions() == []


async def test_a_room_has_an_owner_with_a_limit(start_gateway: Any) -> None:
    gateway = await start_gateway(max_rooms_per_key=2)
    first = await new_room(gateway, name="one")
    await new_room(gateway)
    assert problem(await gateway.http.post("/v1/rooms", json={})) == (409, "room-limit")
    assert await new_room(gateway, name="one") == first, "one that exists is no new one"
    await gateway.http.delete(f"/v1/rooms/{first}")
    await new_room(gateway)


async def test_both_gateways_let_exactly_one_into_the_last_place(start_gateway: Any) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    room_id = await new_room(gateways[0], max_participants=5)
    path = f"/v1/rooms/{room_id}/participants"
    answers = await asyncio.gather(
        *(gateways[number % 2].http.post(path, json={"identity": f"guest {number}"}) for number in range(16))
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 11


async def test_one_name_is_one_room_on_all_gateways(start_gateway: Any) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    found = await asyncio.gather(*(new_room(gateways[number % 2], name="demo") for number in range(8)))
    assert len(set(found)) == 1
    assert len((await gateways[1].http.get("/v1/rooms")).json()["rooms"]) == 1


async def test_rooms_end_by_themselves(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway(room_join_s=10)
    room_id = await new_room(gateway, empty_timeout_s=10)
    ada = await joined(gateway, room_id, "ada")
    async with events_of(gateway, room_id, ada["token"]) as socket:
        await next_event(socket, "room")
    # A connection that is gone for too long, without waiting for it.
    name, long_ago_ms = keys.room_presence(room_id), 1000
    async with asyncio.timeout(20):
        while (await redis.hget(name, ada["participant_id"])).partition(b" ")[2] != b"":
            await asyncio.sleep(0.02)
    await redis.hset(name, ada["participant_id"], f"{long_ago_ms} ")
    path = f"/v1/rooms/{room_id}"
    async with asyncio.timeout(20):
        while await redis.hlen(keys.room_participants(room_id)):
            await asyncio.sleep(0.05)
    assert (await gateway.http.get(path)).json()["participants"] == []
    async with asyncio.timeout(40):
        while (await gateway.http.get(path)).status_code != 404:
            await asyncio.sleep(0.2)
    assert await redis.get(keys.room_ended(room_id)) == b"empty"
