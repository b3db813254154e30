"""clients/js in real browsers: people meet in a room, talk, see and hear each other."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from e2e.room_pages import CLIENT, RoomPage, room_browser, room_page
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
        room_id = (await mien.create_room("standup", lobby=True)).room_id
        everything = ["publish", "watch", "moderate"]
        ada = await mien.join_room(room_id, "ada", "Ada", BUNDLED_AVATAR, everything)
        bob = await mien.join_room(room_id, "bob", "Bob", BUNDLED_AVATAR)
    first, second = await new_page(), await new_page()
    await first.enter(ada)
    await second.enter(bob)
    assert await second.do("[room.state, room.localParticipant]") == ["waiting", None]
    await first.until("room.waitingParticipants.size === 1")
    await first.run("room.admit([...room.waitingParticipants.values()][0])")
    await second.until("room.state === 'connected'")
    assert await second.do("[room.name, room.localParticipant.name]") == ["standup", "Bob"]
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
    await second.run("room.close()")
    assert await second.told("disconnected") == [["closed", "this client closed its connections"]]
    await second.run(f"room.connect({json.dumps(system.stack.url)}, {json.dumps(bob.token)})")
    assert await second.do("room.state") == "connected"
    assert await first.told("participantDisconnected") == [], "it came back as the same participant"
    await first.do("room.lock(true)")
    await second.until("room.locked")

    await first.do("room.remove([...room.remoteParticipants.values()][0])")
    await second.until("room.state === 'disconnected'")
    assert (await second.told("disconnected"))[-1][0] == "removed"
    await first.until("room.remoteParticipants.size === 0")
    assert (await first.told("participantDisconnected")) == [["bob", "removed"]]
    await first.do("room.end()")
    await first.until("room.state === 'disconnected'")
    assert (await first.told("disconnected"))[0][0] == "ended"


async def test_two_pages_see_and_hear_each_other_and_no_picture_leaves_them(system: System, new_page: NewPage) -> None:
    async with MienClient(system.stack.url) as mien:
        room_id = (await mien.create_room("call")).room_id
        ada = await mien.join_room(room_id, "ada", "Ada", BUNDLED_AVATAR)
        bob = await mien.join_room(room_id, "bob", "Bob", BUNDLED_AVATAR)
    first, second = await new_page(), await new_page()
    await first.open()
    await first.run(quick_start(system.stack.url, ada.token))
    await second.enter(bob, camera=True, microphone=True)

    await both_see_and_hear(first, second)
    await first.run("room.startAudio()")
    assert await first.do("room.canPlaybackAudio")
    await first.until("room.activeSpeakers.some(({identity}) => identity === 'bob')")
    await first.until("moved(document.querySelector('video')) > 0.3")  # the first one is the own avatar's

    await second.run("room.localParticipant.setMicrophoneEnabled(false)")
    await first.until("other('bob').isMuted && window.told.some(([name]) => name === 'trackMuted')")
    await first.until("statsOf('bob').then(({voiceLevel}) => voiceLevel < 0.001)")
    await second.run("room.localParticipant.setMicrophoneEnabled(true)")
    await first.until("statsOf('bob').then(({voiceLevel}) => voiceLevel > 0.02)")

    for page in (first, second):
        await demand_no_picture(page)

    # The page is loaded again: the same participant comes back, and the other page never lost it.
    began_s = time.monotonic()
    await second.enter(bob, camera=True, microphone=True)
    await second.until("movedOf('ada') > 0.3")
    print(f"a reload shows the other person after {time.monotonic() - began_s:.1f} s")
    await first.until("movedOf('bob') > 0.3")
    assert await first.told("participantDisconnected") == []


async def test_a_call_goes_on_when_services_are_killed_and_the_network_changes(
    system: System, new_page: NewPage
) -> None:
    async with MienClient(system.stack.url) as mien:
        room_id = (await mien.create_room("call")).room_id
        invitations = {name: await mien.join_room(room_id, name, name, BUNDLED_AVATAR) for name in ("ada", "bob")}
    first, second = await new_page(), await new_page()
    await first.enter(invitations["ada"], camera=True, microphone=True)
    await second.enter(invitations["bob"], camera=True, microphone=True)
    await both_see_and_hear(first, second)

    await system.stack.kill("gateway")
    await first.until("room.state === 'reconnecting'")
    await first.run("room.sendMessage('are you there?')")
    await system.stack.start("gateway")
    await first.until("room.state === 'connected'")
    await second.until("window.told.some(([name]) => name === 'chatMessage')")

    peers = await first.do("window.peers.length")
    await system.stack.kill("signaling")
    await first.until("room.localParticipant.publisher.carrier === 'socket'")  # motion takes the other way meanwhile
    sent = await first.do("room.localParticipant.publisher.packetsSent")
    await first.until(f"room.localParticipant.publisher.packetsSent > {sent + 10}")
    await system.stack.start("signaling")
    await first.until(f"window.peers.length >= {peers + 2}")
    await both_see_and_hear(first, second)

    await second.do("void window.dispatchEvent(new Event('online'))")
    await second.until("window.told.filter(([name]) => name === 'reconnected').length >= 2")
    await both_see_and_hear(first, second)
    for page in (first, second):
        assert await page.told("participantDisconnected") == []
        assert await page.told("disconnected") == []


async def both_see_and_hear(first: RoomPage, second: RoomPage) -> None:
    for page, other in ((first, "bob"), (second, "ada")):
        await page.do(f"movedOf({other!r})")
        await page.until(f"movedOf({other!r}) > 0.3")
        await page.until(f"statsOf({other!r}).then(({{fps, voiceLevel}}) => fps > 1 && voiceLevel > 0.02)")
        await page.until("room.localParticipant.publisher.carrier === 'channel'")


def quick_start(gateway_url: str, token: str) -> str:
    """The README's first example as an expression."""
    example = (CLIENT / "README.md").read_text().split("```js\n")[1].split("```")[0]
    lines = example.replace('import { Room } from "mien-client";', "const { Room } = window.mienClient;")
    assert lines != example
    assert len([line for line in lines.splitlines() if line]) <= 15, "a quick start has at most 15 lines"
    given = f"const [grid, gatewayUrl, token] = [document.body, {json.dumps(gateway_url)}, {json.dumps(token)}];"
    return "(async () => {" + given + lines.replace("new Room()", "window.listen(new Room())") + "})()"


async def demand_no_picture(page: RoomPage) -> None:
    """Fail if anything that the page has sent could be a picture of its camera."""
    sent = await page.do("window.channelMessages")
    assert len(sent) > 30
    assert set(sent) == {128}, "a data channel carries packets of motion only"
    for message in page.messages:
        if isinstance(message, bytes):
            assert len(message) == 128, "a WebSocket carries packets of motion"
        else:
            assert json.loads(message)["type"] in {"mute", "hand", "message", "reaction"}
    for body in filter(None, page.bodies):
        assert body.startswith((b"v=0", b"a=ice-ufrag")), "requests carry session descriptions and candidates"
    senders = "window.peers.flatMap((peer) => peer.getSenders()).map(({track}) => track?.kind ?? null)"
    assert "video" not in await page.do(senders)
    offers = "window.peers.map((peer) => peer.localDescription?.sdp ?? '')"
    sections = [
        section for offer in await page.do(offers) for section in offer.split("\r\nm=") if "video" in section[:5]
    ]
    assert sections
    assert all("a=recvonly" in section for section in sections)
    assert await page.do("window.devicesAsked") == ["video", "audio"]


async def test_a_room_goes_on_with_the_camera_of_its_preview(system: System, new_page: NewPage) -> None:
    async with MienClient(system.stack.url) as mien:
        room_id = (await mien.create_room("preview")).room_id
        ada = await mien.join_room(room_id, "ada", "Ada", BUNDLED_AVATAR)
    page = await new_page()
    await page.open()
    url, token = json.dumps(system.stack.url), json.dumps(ada.token)
    await page.run(f"(window.preview = new window.mienClient.Preview({url}, {token})).ready")
    await page.run("preview.localParticipant.setCameraEnabled(true)")
    await page.run("preview.localParticipant.setMicrophoneEnabled(true)")
    await page.do("void document.body.append(preview.localParticipant.attach())")
    await page.until("preview.localParticipant.seesFace && moved(document.querySelector('video')) > 0.3")
    await page.until("preview.localParticipant.microphoneLevel > 0.1")
    sent = await page.do("window.channelMessages.length")

    await page.run(f"window.listen(new window.mienClient.Room()).connect({url}, {token}, {{preview: window.preview}})")
    assert await page.do("[preview.localParticipant, room.localParticipant.isCameraEnabled]") == [None, True]
    await page.until("!room.localParticipant.isMuted")
    await page.until(f"window.channelMessages.length > {sent + 30}")
    assert await page.do("window.devicesAsked") == ["video", "audio"], "nothing is asked for twice"

    inputs = "mienClient.Room.getLocalDevices('audioinput').then((all) => all.map((one) => one.deviceId))"
    microphones = await page.do(inputs)
    assert len(microphones) > 1
    await page.run(f"room.switchActiveDevice('audioinput', {json.dumps(microphones[-1])})")
    await page.until("room.localParticipant.microphoneLevel > 0.1")
    refused = "room.switchActiveDevice('videoinput', 'none').catch((error) => [error.name, error.code, error.source])"
    assert await page.do(refused) == ["MediaDevicesError", "not-found", "camera"]
    assert await page.told("mediaDevicesError") == [["not-found"]]
    assert await page.do("room.localParticipant.isCameraEnabled"), "the camera before is still on"

    await page.run("room.localParticipant.setCameraEnabled(false)")
    sent = await page.do("window.channelMessages.length")
    await page.until(f"window.channelMessages.length > {sent + 30}")  # the voice opens the mouth
    await page.run("room.localParticipant.setMicrophoneEnabled(false)")
    sent = await page.do("window.channelMessages.length")
    await page.run("new Promise((done) => setTimeout(done, 300))")
    assert await page.do("window.channelMessages.length") == sent, "the server moves the face"
    await page.run("room.react('nod')")
    await page.until(f"window.channelMessages.length > {sent + 10}")
    await page.run("room.localParticipant.setMicrophoneEnabled(true)")

    await page.run("room.localParticipant.setAvatar(null)")
    await page.until("room.localParticipant.sessionId === null && room.localParticipant.publisher.carrier === null")
    assert await page.do("room.localParticipant.setCameraEnabled(true).catch((error) => error.name)") == "NotPublishing"
    await page.run("room.localParticipant.setAvatar('ingrid')")
    await page.run("room.localParticipant.setCameraEnabled(true)")
    await page.until("room.localParticipant.publisher.carrier === 'channel'")
    await page.until("room.localParticipant.seesFace && moved(document.querySelector('video')) > 0.3")

    assert [error for error in page.errors if "avatar" in error or "mouth" in error] == []
    await page.run("room.disconnect()")
    assert await page.told("disconnected") == [["left", "this participant has left the room"]]
    async with MienClient(system.stack.url) as mien:
        assert (await mien.room(room_id)).participants == []
