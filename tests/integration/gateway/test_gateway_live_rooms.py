"""What a participant learns of its own connection, of who speaks, and of who is in which slot, on a real Redis."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from integration.gateway.room_calls import PATIENCE_S, bearer, events_of, joined, new_room, next_event, say
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection

from mien_shared.bus import keys
from mien_shared.bus.live_rooms import ActiveSpeaker, LiveChange, LiveRooms, SlotsState, SlotState

pytestmark = pytest.mark.integration


async def next_at_all(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        event: dict[str, Any] = json.loads(await socket.recv())
        return event


async def test_the_addresses_of_a_participant(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    room_id = await new_room(gateway)
    base = gateway.settings.signaling_url
    ada = await joined(gateway, room_id, "ada", avatar_id="someone")
    assert (ada["whip_url"], ada["whep_url"]) == (f"{base}/v1/whip/rooms/{room_id}", f"{base}/v1/whep/rooms/{room_id}")
    mute = await joined(gateway, room_id, "mute", "publish", avatar_id="someone")
    assert (mute["whip_url"], mute["whep_url"]) == (ada["whip_url"], None)
    bob = await joined(gateway, room_id, "bob", "publish", "watch")
    assert (bob["whip_url"], bob["whep_url"]) == (None, ada["whep_url"])
    async with events_of(gateway, room_id, bob["token"]) as socket:
        first = (await next_event(socket, "room"))["connection"]
        assert first == {"whip_url": None, "whep_url": ada["whep_url"], "uplink_url": None, "ice_servers": []}
        path = f"/v1/rooms/{room_id}/participants/{bob['participant_id']}"
        answer = await gateway.anyone.patch(path, json={"avatar_id": "someone"}, headers=bearer(bob))
        assert answer.status_code == 200, answer.text
        now = (await next_event(socket, "room"))["connection"]
        assert now["whip_url"] == ada["whip_url"]
        assert now["uplink_url"].endswith(f"/v1/sessions/{answer.json()['session_id']}/uplink")


async def test_clients_are_told_who_speaks_and_who_is_in_their_slots(start_gateway: Any, redis: Redis) -> None:
    gateway = await start_gateway()
    room_id = await new_room(gateway)
    ada, bob = [await joined(gateway, room_id, name) for name in ("ada", "bob")]
    bob_id, live = bob["participant_id"], LiveRooms(redis)

    def slots(shown: str | None) -> SlotsState:
        slot = SlotState(slot=0, video_mid="0", audio_mid="1", participant_id=shown)
        return SlotsState(viewer_id="v", slots=(slot,))

    async with (
        events_of(gateway, room_id, ada["token"]) as hers,
        events_of(gateway, room_id, bob["token"]) as his,
    ):
        state = await next_event(his, "room")
        for socket in (hers, his):
            assert await next_event(socket, "active_speakers") == {"type": "active_speakers", "speakers": []}
        loud = ActiveSpeaker(participant_id=ada["participant_id"], level=0.5)
        await live.write({room_id: LiveChange([loud], claimed={bob_id: slots(ada["participant_id"])})})
        for socket in (hers, his):
            assert (await next_event(socket, "active_speakers"))["speakers"] == [loud.model_dump()]
        told = await next_event(his, "slots")
        assert told == {
            "type": "slots",
            "viewer_id": "v",
            "slots": [{"slot": 0, "video_mid": "0", "audio_mid": "1", "participant_id": ada["participant_id"]}],
        }
        await live.write({room_id: LiveChange(kept={bob_id: slots(None)})})
        assert (await next_at_all(his))["slots"][0]["participant_id"] is None, "and the speakers are not told again"
        await redis.delete(keys.room_live(room_id), keys.room_live_version(room_id))
        for socket in (hers, his):
            assert (await next_at_all(socket))["speakers"] == [], "the other's slots were never told to her"
        await live.write({room_id: LiveChange([loud], kept={bob_id: slots(None)})})
        assert (await next_at_all(hers))["speakers"] == [loud.model_dump()]
        await say(hers, type="leave")
    async with events_of(gateway, room_id, bob["token"], since=state["sequence"]) as his:
        assert (await next_event(his))["type"] == "resumed"
        assert (await next_event(his, "active_speakers"))["speakers"] == [loud.model_dump()]
        assert (await next_at_all(his))["type"] == "slots"
