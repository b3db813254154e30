"""`mien demo --participants N`: recorded speakers meet in a room, and each measures what it receives of the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mien_client.api import Invitation, MienClient
from mien_client.launcher import Stack, StackOptions
from mien_client.link_figures import LinkFigures, SentVoice, measure
from mien_client.publication import Publication
from mien_client.room import Room
from mien_client.room_view import RoomView
from mien_client.sound import LoopedVoice
from mien_client.speaking import SPEAKERS, packets
from mien_client.voice_packets import VOICE_CLOCK_HZ
from mien_client.watching import kbit_s
from mien_shared.wire.track import MotionTrack

#: The name of the demo's room.
ROOM = "demo"
MOST_PARTICIPANTS = 6
#: What arrives earlier does not count: receivers fill their buffers, and voice and lips find each other.
_SETTLE_S = 3.0
#: Participants that have the same recording are this far apart in it.
_APART_S = 3.7
_BUNDLED_AVATAR = "mien"
#: People who may join the demo's room beside its participants.
_VISITORS = 4


@dataclass(frozen=True)
class _Role:
    """Who meets. speaker: the number of its recording."""

    identity: str
    avatar_id: str
    speaker: int


#: An avatar that the service does not have is replaced by the bundled one.
_ROLES = (
    _Role("ada", "mien", 1),
    _Role("kenji", "kenji", 0),
    _Role("mateo", "mateo", 2),
    _Role("ingrid", "ingrid", 1),
    _Role("noor", "noor", 1),
    _Role("sam", "mien", 0),
)


@dataclass(frozen=True)
class MeetingOptions:
    """participants: how many meet. seconds: how long, None: no end. measure: whether they watch and report."""

    participants: int
    seconds: float | None = None
    measure: bool = False
    stack: StackOptions = field(default_factory=StackOptions)


@dataclass
class _Attendee:
    """One recorded speaker in the room. links: what it received, by the sender's participant id."""

    role: _Role
    invitation: Invitation
    room: Room
    publication: Publication
    sent: SentVoice
    view: RoomView | None = None
    links: dict[str, LinkFigures] = field(default_factory=dict)
    received_before: int = 0
    sent_before: int = 0


async def run_meeting(options: MeetingOptions, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Run the meeting. Returns the figures of all links, or None if nobody measures."""
    # A busy machine finds that it can hold fewer; a demo would rather be slow than refuse.
    capacity = {"MIEN_CAPACITY": os.environ.get("MIEN_CAPACITY", str(MOST_PARTICIPANTS + _VISITORS))}
    services = replace(options.stack, generator_env=capacity | options.stack.generator_env)
    async with Stack(services) as stack, MienClient(stack.url) as mien, contextlib.AsyncExitStack() as exits:
        room = await mien.create_room(ROOM)
        attendees = []
        for role in _ROLES[: options.participants]:
            attending = _attending(mien, room.room_id, role, options.measure)
            attendees.append(await exits.enter_async_context(attending))
        say(f"Mien is running. Open {stack.url}/room/{ROOM} and join; Ctrl-C ends it.")
        watch = asyncio.create_task(stack.watch(), name="services")
        meeting = asyncio.create_task(_meet(attendees, options, exits), name="meeting")
        try:
            done, _ = await asyncio.wait({watch, meeting}, return_when=asyncio.FIRST_COMPLETED)
            return meeting.result() if meeting in done else watch.result()
        finally:
            for task in (watch, meeting):
                task.cancel()
            await asyncio.gather(watch, meeting, return_exceptions=True)


@contextlib.asynccontextmanager
async def _attending(mien: MienClient, room_id: str, role: _Role, remembers: bool) -> AsyncIterator[_Attendee]:
    """A participant that speaks until the end. remembers: whether it notes when it sent what, for the figures."""
    known = {avatar.avatar_id for avatar in await mien.avatars()}
    avatar_id = role.avatar_id if role.avatar_id in known else _BUNDLED_AVATAR
    invitation = await mien.join_room(room_id, role.identity, role.identity.title(), avatar_id)
    recording = SPEAKERS[role.speaker]
    track = MotionTrack.load(recording.track)
    voice = await asyncio.to_thread(LoopedVoice, str(recording.voice))
    async with Room(invitation.events_url, invitation.token) as room:
        # The same recording twice is not heard at the same place.
        start_s = time.monotonic() - _APART_S * _ROLES.index(role)
        voice.begin(start_s)
        sent = SentVoice()
        monotonic_to_unix_s = time.time() - time.monotonic()

        def on_voice(payload: bytes, ticks: int) -> None:
            sent.sent(payload, start_s + ticks / VOICE_CLOCK_HZ + monotonic_to_unix_s)

        publication = await room.publish(packets(track, start_s), voice, on_voice if remembers else None)
        await publication.connected()
        yield _Attendee(role, invitation, room, publication, sent)


async def _meet(
    attendees: list[_Attendee], options: MeetingOptions, exits: contextlib.AsyncExitStack
) -> dict[str, Any] | None:
    if not options.measure:
        await (asyncio.Event().wait() if options.seconds is None else asyncio.sleep(options.seconds))
        return None
    for one in attendees:
        await exits.enter_async_context(_watching(one, attendees))
    await asyncio.sleep(_SETTLE_S)
    since_s = time.time()
    for one in attendees:
        assert one.view is not None
        one.received_before, one.sent_before = await one.view.received_bytes(), one.publication.sent_bytes
    try:
        await (asyncio.Event().wait() if options.seconds is None else asyncio.sleep(options.seconds))
    finally:
        report = await _report(attendees, since_s)
    return report


@contextlib.asynccontextmanager
async def _watching(one: _Attendee, attendees: list[_Attendee]) -> AsyncIterator[None]:
    others = {other.invitation.participant_id: other for other in attendees if other is not one}
    one.links = {name: LinkFigures(other.sent) for name, other in others.items()}
    view = one.room.watch(max(1, len(others)))
    measure(view, one.links)
    async with view:
        one.view = view
        yield


async def _report(attendees: list[_Attendee], since_s: float) -> dict[str, Any]:
    until_s = time.time()
    names = {one.invitation.participant_id: one.role.identity for one in attendees}
    down = [await one.view.received_bytes() - one.received_before for one in attendees if one.view is not None]
    up = [one.publication.sent_bytes - one.sent_before for one in attendees]
    return {
        "participants": [one.role.identity for one in attendees],
        "links": [
            {"from": names[sender], "to": one.role.identity, **link.as_json(since_s, until_s)}
            for one in attendees
            for sender, link in one.links.items()
        ],
        "uplink_kbit_s": kbit_s(sum(up) // len(up), until_s - since_s),
        "downlink_kbit_s": kbit_s(sum(down) // len(down), until_s - since_s),
    }
