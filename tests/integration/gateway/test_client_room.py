"""The Python SDK's rooms against real gateways, one of which is stopped under it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from integration.gateway.conftest import API_KEY
from integration.gateway.room_calls import PATIENCE_S
from integration.voice_peers import until

from mien_client.api import MienClient, MienError
from mien_client.room import Room
from mien_client.room_state import RoomClosed, RoomEvent
from mien_client.whep import WhepError
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

pytestmark = pytest.mark.integration


class Diary:
    """Waits for what a room tells."""

    def __init__(self, room: Room) -> None:
        self.told: list[tuple[RoomEvent, Any]] = []
        for event in RoomEvent:
            room.on(event, lambda value, event=event: self.told.append((event, value)))  # type: ignore[misc]

    async def has(self, event: RoomEvent, count: int = 1) -> list[Any]:
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [value for kind, value in self.told if kind is event]) < count:
                await asyncio.sleep(0.01)
        return found


async def test_two_clients_talk_and_one_is_removed(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(public_url="http://127.0.0.1:1")
    await start_generator()
    async with MienClient(gateway.url, API_KEY) as mien:
        info = await mien.create_room("standup", metadata="mine")
        assert (await mien.create_room("standup")).room_id == info.room_id
        assert [room.name for room in await mien.rooms()] == ["standup"]
        ada = await mien.join_room(info.room_id, "ada", "Ada", "someone", ["publish", "watch", "moderate"])
        bob = await mien.join_room(info.room_id, "bob")
        assert ada.session is not None and bob.session is None
        url = f"ws{gateway.url.removeprefix('http')}/v1/rooms/{info.room_id}/events"
        async with Room(url, ada.token) as hers, Room(url, bob.token) as his:
            heard, seen = Diary(his), Diary(hers)
            assert his.local_participant is not None and his.local_participant.identity == "bob"
            await hers.send_message("hello")
            await hers.send_reaction("👏")
            (said,) = await heard.has(RoomEvent.CHAT_MESSAGE)
            assert (said.text, said.participant.name) == ("hello", "Ada")
            assert (await heard.has(RoomEvent.REACTION))[0].text == "👏"
            await his.raise_hand()
            await his.set_muted(True)
            (_, updated) = await seen.has(RoomEvent.PARTICIPANT_UPDATED, 2)
            assert updated.hand and updated.muted
            await mien.lock_room(info.room_id)
            await heard.has(RoomEvent.ROOM_UPDATED)
            with pytest.raises(MienError, match="room-locked"):
                await mien.join_room(info.room_id, "eve")
            found = {one.identity for one in (await mien.room(info.room_id)).participants}
            assert found == {"ada", "bob"}
            changed = await mien.update_participant(info.room_id, ada.participant_id, ada.token, avatar_id=None)
            assert changed.session_id is None
            await mien.remove_participant(info.room_id, bob.participant_id, ada.token)
            with pytest.raises(RoomClosed, match="a moderator removed this participant"):
                await his.wait_closed()
            assert [one.identity for one in await seen.has(RoomEvent.PARTICIPANT_DISCONNECTED)] == ["bob"]
            assert [one.identity for one in hers.participants] == ["ada"]
            await hers.leave()
        with pytest.raises(RoomClosed, match="404"):
            await Room(url, bob.token).connect()
        await mien.end_room(info.room_id)
        assert await mien.rooms() == []


async def test_a_client_reconnects_and_misses_nothing(start_gateway: Any) -> None:
    gateway = await start_gateway()
    async with MienClient(gateway.url, API_KEY) as mien:
        info = await mien.create_room()
        url = f"ws{gateway.url.removeprefix('http')}/v1/rooms/{info.room_id}/events"
        ada, bob = await mien.join_room(info.room_id, "ada"), await mien.join_room(info.room_id, "bob")
        async with Room(url, ada.token) as hers, Room(url, bob.token) as his:
            heard = Diary(his)
            assert his._socket is not None
            his._socket.transport.abort()
            await heard.has(RoomEvent.RECONNECTING)
            for number in range(5):
                await hers.send_message(str(number))
            said = await heard.has(RoomEvent.CHAT_MESSAGE, 5)
            assert [one.text for one in said] == [str(number) for number in range(5)]
            assert await heard.has(RoomEvent.RECONNECTED) == [True]


async def test_who_may_not_watch_is_told(start_gateway: Any) -> None:
    gateway = await start_gateway()
    async with MienClient(gateway.url, API_KEY) as mien:
        info = await mien.create_room()
        ada = await mien.join_room(info.room_id, "ada", grants=["moderate"])
        url = f"ws{gateway.url.removeprefix('http')}/v1/rooms/{info.room_id}/events"
        async with Room(url, ada.token) as room:
            with pytest.raises(WhepError, match="this participant may not watch its room"):
                await room.watch().__aenter__()


async def test_motion_goes_over_the_websocket_while_whip_fails(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(public_url="http://127.0.0.1:1", signaling_url="http://127.0.0.1:1")
    await start_generator()
    async with MienClient(gateway.url, API_KEY) as mien:
        info = await mien.create_room()
        ada = await mien.join_room(info.room_id, "ada", "Ada", "someone")
        url = f"ws{gateway.url.removeprefix('http')}/v1/rooms/{info.room_id}/events"
        async with Room(url, ada.token) as room:
            assert room._state.connection is not None and ada.session is not None
            local = f"ws{gateway.url.removeprefix('http')}/v1/sessions/{ada.session.session_id}/uplink"
            room._state.connection.uplink_url = local  # the public address is one that does not answer
            publication = await room.publish()
            publication.push(MotionPacket(1, 1000, Keypoints.at_rest()))
            async with asyncio.timeout(PATIENCE_S):
                await publication.connected()
            assert publication.over == "websocket" and "does not answer" in publication.failure
            publication.push(MotionPacket(2, 1033, Keypoints.at_rest()))
            await until(lambda: publication.sent_bytes >= 128, PATIENCE_S)
            await room.set_muted(True)
            await until(lambda: publication.is_muted, PATIENCE_S)
            await mien.remove_participant(info.room_id, ada.participant_id)
            await until(lambda: all(task.done() for task in publication._tasks), PATIENCE_S)
            with pytest.raises(WhepError, match="a moderator removed this participant"):
                await room.watch().__aenter__()
        assert publication.over is None, "the room closes what it has opened"
