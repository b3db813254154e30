"""The Python SDK watches a room over one connection: slots, another connection after a break, and the end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiortc import RTCPeerConnection
from integration.room_peers import NAMES, PATIENCE_S, ROOM, RoomWorld, headers_of, width_of
from integration.test_signaling_room import speak, world
from integration.voice_peers import until

from mien_client.api import RoomConnection, SlotList
from mien_client.room_view import RoomView
from mien_client.voice_packets import VoiceTap
from mien_client.whep import ReceivedFrame

pytestmark = pytest.mark.integration

__all__ = ["world"]  # a fixture


class Told:
    """What the gateway's events would tell ada of her slots."""

    def __init__(self, world: RoomWorld) -> None:
        self._world = world
        self.slots: SlotList | None = None

    async def follow(self) -> None:
        while True:
            found = (await self._world.live()).slots.get("ada")
            self.slots = None if found is None else SlotList.model_validate(found.model_dump())
            await asyncio.sleep(0.05)


@asynccontextmanager
async def view_of_ada(world: RoomWorld, slots: int) -> AsyncIterator[RoomView]:
    async def where() -> RoomConnection:
        return RoomConnection(whep_url=f"{str(world.client.base_url).rstrip('/')}/v1/whep/rooms/{ROOM}")

    told = Told(world)
    following = asyncio.create_task(told.follow())
    token = headers_of("ada")["Authorization"].removeprefix("Bearer ")
    try:
        async with RoomView(where, lambda: told.slots, token, slots) as view:
            yield view
    finally:
        following.cancel()


async def next_width(view: RoomView, name: str) -> int:
    async with asyncio.timeout(PATIENCE_S), aclosing(view.frames(name)) as frames:
        async for frame in frames:
            return frame.picture.width
    raise AssertionError("frames() does not end")


async def test_pictures_and_voices_come_by_participant_also_after_a_break(world: RoomWorld) -> None:
    for name in ("ada", "bob", "cy"):
        await world.enter(name)
    speaking = [asyncio.create_task(speak(name, await world.talker(name))) for name in ("bob", "cy")]
    widths: defaultdict[str, set[int]] = defaultdict(set)
    voices: defaultdict[str, set[int]] = defaultdict(set)

    def seen(name: str, frame: ReceivedFrame) -> None:
        widths[name].add(frame.picture.width)

    async with view_of_ada(world, 2) as view:
        view.on_frame(seen)
        view.on_voice(lambda name, packet: voices[name].add(packet.payload[0]))
        await until(lambda: len(widths) == len(voices) == 2, PATIENCE_S)
        assert widths == {name: {width_of(name)} for name in ("bob", "cy")}
        assert voices == {name: {NAMES.index(name)} for name in ("bob", "cy")}
        assert await view.received_bytes() > 0
        current: Any = view._current
        await current.peer.close()
        await until(lambda: view.connections == 2 and len(view.occupants()) == 2, PATIENCE_S)
        assert await next_width(view, "cy") == width_of("cy")
    for task in speaking:
        task.cancel()


async def test_a_newer_connection_of_the_participant_ends_the_view(world: RoomWorld) -> None:
    for name in ("ada", "bob"):
        await world.enter(name)
    async with view_of_ada(world, 1) as view:
        await next_width(view, "bob")
        await world.watcher("ada", 1)
        assert view._task is not None
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(view._task)
        assert view.failure == "a newer connection of this participant has replaced this one"
        assert view.connections == 1


async def test_the_pinned_aiortc_has_what_a_voice_tap_replaces() -> None:
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("audio", direction="recvonly").receiver
    before = receiver._RTCRtpReceiver__jitter_buffer
    tap = VoiceTap(receiver, lambda packet: None)
    assert receiver._RTCRtpReceiver__jitter_buffer is not before
    assert receiver._RTCRtpReceiver__jitter_buffer._prefetch == 3
    assert tap.timestamp_of(0) is None, "nothing was received"
    receiver._RTCRtpReceiver__timestamp_mapper.map(2**32 - 960)
    assert (tap.timestamp_of(0), tap.timestamp_of(1920)) == (2**32 - 960, 960)
    await peer.close()
