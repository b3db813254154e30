"""The live state of rooms on a real Redis: the newest write wins, and nothing stays of a service that is silent."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.live_rooms import ActiveSpeaker, LiveChange, LiveRoom, LiveRooms, SlotsState, SlotState, Written
from mien_shared.bus.rooms import Rooms

pytestmark = pytest.mark.integration

ADA = ActiveSpeaker(participant_id="ada", level=0.5)


def slots(viewer_id: str, shown: str | None = None) -> SlotsState:
    return SlotsState(
        viewer_id=viewer_id, slots=(SlotState(slot=0, video_mid="0", audio_mid="1", participant_id=shown),)
    )


@pytest.fixture
def live(redis: Redis) -> LiveRooms:
    return LiveRooms(redis)


async def state(live: LiveRooms) -> LiveRoom:
    return (await live.read(["r"]))["r"]


async def version(redis: Redis) -> bytes:
    return (await Rooms(redis).newest(["r"]))["r"].live_version


async def test_what_is_written_is_read_and_only_a_change_makes_a_new_version(live: LiveRooms, redis: Redis) -> None:
    assert await state(live) == LiveRoom() and await version(redis) == b""
    written = await live.write({"r": LiveChange([ADA], claimed={"bob": slots("b1", "ada")}), "empty": LiveChange()})
    assert written == {"r": Written(await version(redis), frozenset())}
    assert await state(live) == LiveRoom((ADA,), {"bob": slots("b1", "ada")})
    first = await version(redis)
    assert first
    await live.write({"r": LiveChange([ADA], kept={"bob": slots("b1", "ada")})})
    assert await version(redis) == first, "written again, and the same"
    await live.write({"r": LiveChange(kept={"bob": slots("b1")})})
    assert int(await version(redis)) > int(first)
    assert (await state(live)).slots["bob"].slots[0].participant_id is None
    assert 0 < await redis.pttl(keys.room_live("r")) <= keys.ROOM_LIVE_S * 1000
    assert await redis.exists(keys.room_live("empty")) == 0


async def test_the_newest_connection_of_a_participant_wins(live: LiveRooms) -> None:
    await live.write({"r": LiveChange(claimed={"bob": slots("old")})})
    await live.write({"r": LiveChange(claimed={"bob": slots("new")})})
    assert (await live.write({"r": LiveChange(kept={"bob": slots("old")})}))["r"].refused == {"bob"}
    assert (await state(live)).slots["bob"].viewer_id == "new"
    assert not (await live.write({"r": LiveChange(dropped=[("bob", "old")])}))["r"].refused
    assert (await state(live)).slots["bob"].viewer_id == "new", "the older one's end changes nothing"
    await live.write({"r": LiveChange(dropped=[("bob", "new")])})
    assert (await state(live)).slots == {}


async def test_a_redis_that_came_back_empty_takes_what_is_kept(live: LiveRooms, redis: Redis) -> None:
    await live.write({"r": LiveChange(claimed={"bob": slots("b1")})})
    before = await version(redis)
    await redis.delete(keys.room_live("r"), keys.room_live_version("r"))
    assert not (await live.write({"r": LiveChange([ADA], kept={"bob": slots("b1")})}))["r"].refused
    assert (await state(live)).slots["bob"].viewer_id == "b1" and await version(redis) >= before


async def test_entries_of_a_silent_service_go_while_another_writes(live: LiveRooms, redis: Redis) -> None:
    await live.write({"r": LiveChange(claimed={"bob": slots("b1")})}, ttl_ms=50)
    before = await version(redis)
    async with asyncio.timeout(30):
        while (await state(live)).slots:
            await live.write({"r": LiveChange([ADA])})
            await asyncio.sleep(0.02)
    assert await version(redis) != before


async def test_an_ended_room_gets_no_live_state(live: LiveRooms, redis: Redis) -> None:
    await redis.set(keys.room_ended("r"), "ended", ex=60)
    written = await live.write({"r": LiveChange([ADA], claimed={"bob": slots("b1")})})
    assert written == {"r": Written(b"", frozenset())}
    assert await state(live) == LiveRoom()


async def test_an_entry_of_another_version_is_left_out(live: LiveRooms, redis: Redis) -> None:
    await redis.hset(keys.room_live("r"), mapping={"speakers": "9 - nonsense", "slots bob": "9 b1 {}"})
    assert await state(live) == LiveRoom()
