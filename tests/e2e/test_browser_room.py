"""clients/js in real browsers: people meet in a room, talk, see and hear each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from e2e.room_pages import RoomPage, room_browser, room_page
from e2e.system import System

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR

pytestmark = [pytest.mark.e2e, pytest.mark.chromium]

NewPage = Callable[[], Awaitable[RoomPage]]


@pytest_asyncio.fixture
async def new_page(chromium: str, system: System, tmp_path: Path) -> AsyncIterator[NewPage]:
    async with room_browser(chromium, tmp_path) as browser:

        async def opened() -> RoomPage:
            return await room_page(browser, system.stack.url, system.stack.service_url("signaling"))

        yield opened


async def test_two_people_talk_in_a_room_and_a_moderator_keeps_order(system: System, new_page: NewPage) -> None:
    async with MienClient(system.stack.url) as mien:
        room_id = (await mien.create_room("standup")).room_id
        everything = ["publish", "watch", "moderate"]
        ada = await mien.join_room(room_id, "ada", "Ada", BUNDLED_AVATAR, everything)
        bob = await mien.join_room(room_id, "bob", "Bob", BUNDLED_AVATAR)
    first, second = await new_page(), await new_page()
    await first.enter(ada)
    await second.enter(bob)
    assert await second.do("[room.state, room.name, room.localParticipant.name]") == ["connected", "standup", "Bob"]
    await first.until("[...room.remoteParticipants.values()].some(({identity}) => identity === 'bob')")

    await second.do("room.sendMessage('hello')")
    await second.do("room.react('nod')")
    await second.do("room.localParticipant.setHand(true)")
    await first.until("window.told.some(([name]) => name === 'reactionReceived')")
    await first.until("[...room.remoteParticipants.values()].some(({hand}) => hand)")

    # Without camera and microphone Bob is muted. He speaks, Ada mutes him, and his microphone obeys.
    await first.until("[...room.remoteParticipants.values()][0].isMuted")
    await second.do("room.localParticipant.setMicrophoneEnabled(true)")
    await first.until("!([...room.remoteParticipants.values()][0].isMuted)")
    await first.do("room.mute([...room.remoteParticipants.values()][0])")
    await second.until("!room.localParticipant.isMicrophoneEnabled && room.localParticipant.isMuted")
    await first.do("room.lowerHand([...room.remoteParticipants.values()][0])")
    await second.until("!room.localParticipant.hand")
    await first.do("room.lock(true)")
    await second.until("room.locked")

    await first.do("room.remove([...room.remoteParticipants.values()][0])")
    await second.until("room.state === 'disconnected'")
    assert (await second.told("disconnected"))[0][0] == "removed"
    await first.until("room.remoteParticipants.size === 0")
    assert (await first.told("participantDisconnected")) == [["bob", "removed"]]
    await first.do("room.end()")
    await first.until("room.state === 'disconnected'")
    assert (await first.told("disconnected"))[0][0] == "ended"
