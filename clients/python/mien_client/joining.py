"""`mien join`: take part in a room, with the face of a clip or a recorded track, and measure what the others send."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np

from mien_client.api import BadAddress, BadToken, MienClient, MienError, Participant, Unreachable, checked_address
from mien_client.demo import BUNDLED_AVATAR, StatedConsent, avatar_of
from mien_client.link_figures import LinkFigures, measure
from mien_client.live import CAMERA, EncoderFinder, FaceWatch, beginning, speak
from mien_client.outgoing import OutgoingMotion
from mien_client.overheard import OverheardVoice, faceless
from mien_client.pictures import CameraPictures, ClipPictures
from mien_client.publication import Publication
from mien_client.room import Room
from mien_client.room_state import RoomClosed, RoomEvent, Said
from mien_client.sound import FileSound, LoopedVoice, has_sound
from mien_client.speaking import packets, voice_of
from mien_client.watching import kbit_s
from mien_encoder.framing import TEN_KEYPOINTS
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.reactions import REACTIONS
from mien_shared.wire.track import MotionTrack

#: What arrives earlier does not count in the figures.
_SETTLE_S = 3.0


@dataclass(frozen=True)
class JoinOptions:
    """room: an address of a room's page, with or without a token, or a name.

    clip, track, audio: files; clip may be CAMERA. With audio alone the
    voice moves the avatar's mouth; without all three the participant only listens and watches. A clip's own sound is
    its voice, a track has the voice beside it, unless audio names another file.
    seconds: when to leave, None for the end of the clip, or never.
    """

    room: str
    clip: str | None = None
    track: Path | None = None
    audio: str | None = None
    loop: bool = False
    avatar: str = BUNDLED_AVATAR
    name: str = "Python"
    url: str = "http://127.0.0.1:8080"
    api_key: str | None = None
    seconds: float | None = None
    consent: StatedConsent | None = None

    @property
    def publishes(self) -> bool:
        return self.clip is not None or self.track is not None or self.audio is not None


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway, a room by id or name, and the token of a participant if there is one."""

    gateway: str
    room: str
    token: str | None


def place_of(room: str, url: str) -> Place:
    """What a room's address or name means. Raises BadAddress, BadToken."""
    if "://" not in room:
        return Place(url, room, None)
    parts = urlsplit(checked_address(room))
    names = [unquote(part) for part in parts.path.split("/") if part]
    if len(names) != 2 or names[0] != "room":
        shown = parts._replace(fragment="").geturl()  # the fragment may hold a token
        raise BadAddress(f"{shown} is not the address of a room: it ends in /room/ and the room's id or name")
    token = parse_qs(parts.fragment).get("token", [None])[0]
    gateway = f"{parts.scheme}://{parts.netloc}"
    return Place(gateway, names[1] if token is None else room_of_token(token), token)


def room_of_token(token: str) -> str:
    """The room that a participant's token opens. Raises BadToken."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return str(claims["room"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BadToken("the token is not one of a participant of a room: copy the whole address again") from error


def events_url(gateway: str, room_id: str) -> str:
    return f"ws{gateway.removeprefix('http').rstrip('/')}/v1/rooms/{quote(room_id, safe='')}/events"


async def join(options: JoinOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Take part in a room, and leave it at the end. Returns the figures of what was received.

    Raises the errors of the source, the API, and of the room.
    """
    place = place_of(options.room, options.url)
    async with contextlib.AsyncExitStack() as exits:
        source = await _source(options, exits, say)  # before the room: a source that cannot be used needs none
        async with MienClient(place.gateway, options.api_key) as mien:
            url, token = await _invitation(mien, place, options)
            async with _in_room(url, token, say) as room:
                return await _take_part(room, mien, source, options, say)


async def _invitation(mien: MienClient, place: Place, options: JoinOptions) -> tuple[str, str]:
    """The address of the room's events, and the participant's token."""
    if place.token is not None:
        return events_url(place.gateway, place.room), place.token
    avatar_id = await avatar_of(mien, options.avatar, options.consent) if options.publishes else None
    grants = ["publish", "watch"] if options.publishes else ["watch"]
    identity = f"python-{secrets.token_hex(4)}"
    try:
        room_id = (await mien.room(place.room)).room_id
    except MienError as error:
        if error.status not in {404, 422}:
            raise
        room_id = (await mien.create_room(place.room)).room_id
    invitation = await mien.join_room(room_id, identity, options.name, avatar_id, grants)
    return invitation.events_url, invitation.token


@contextlib.asynccontextmanager
async def _in_room(url: str, token: str, say: Callable[[str], None]) -> AsyncIterator[Room]:
    """In the room, once it lets us in; afterwards we have left it, also when we are interrupted."""
    room = Room(url, token)

    def others(one: Participant) -> bool:
        return one.participant_id != room.local_id

    admitted = asyncio.Event()
    room.on(RoomEvent.CONNECTED, lambda _: admitted.set())
    room.on(RoomEvent.WAITING, lambda _: say("Waiting in the lobby until a moderator lets you in."))
    room.on(RoomEvent.PARTICIPANT_CONNECTED, lambda one: say(f"{_name(one)} has joined."))
    room.on(RoomEvent.PARTICIPANT_DISCONNECTED, lambda one: say(f"{_name(one)} has left.") if others(one) else None)
    room.on(RoomEvent.CHAT_MESSAGE, lambda said: say(f"{_name(said.participant)}: {said.text}"))
    async with room:
        try:
            closed = asyncio.create_task(room.wait_closed())
            entered = asyncio.create_task(admitted.wait())
            await asyncio.wait({closed, entered}, return_when=asyncio.FIRST_COMPLETED)
            entered.cancel()
            if closed.done():
                closed.result()  # raises
            closed.cancel()
            yield room
        finally:
            with contextlib.suppress(Unreachable, RoomClosed):
                await room.leave()


def _name(one: Participant | None) -> str:
    return "Someone" if one is None else one.name or one.identity


@dataclass
class _Source:
    """What is published. voice: begins with the motion. overheard: the same voice, which moves a mouth."""

    pictures: ClipPictures | CameraPictures | None = None
    finder: EncoderFinder | None = None
    track: MotionTrack | None = None
    voice: FileSound | LoopedVoice | None = None
    overheard: OverheardVoice | None = None


async def _source(options: JoinOptions, exits: contextlib.AsyncExitStack, say: Callable[[str], None]) -> _Source:
    source = _Source()
    if options.clip is not None:
        is_camera = options.clip == CAMERA
        source.pictures = CameraPictures() if is_camera else ClipPictures(options.clip, options.loop, tell=say)
        await exits.enter_async_context(source.pictures)
        source.finder = await asyncio.to_thread(EncoderFinder, options.clip)
        own = None if is_camera or not await asyncio.to_thread(has_sound, options.clip) else options.clip
        if audio := options.audio or own:
            source.voice = await asyncio.to_thread(FileSound, audio, options.loop)
    elif options.track is not None:
        source.track = MotionTrack.load(options.track)
        if options.audio is not None:
            source.voice = await asyncio.to_thread(FileSound, options.audio, True)
        elif (recorded := voice_of(options.track)) is not None:
            source.voice = await asyncio.to_thread(LoopedVoice, str(recorded))
    elif options.audio is not None:
        source.voice = await asyncio.to_thread(FileSound, options.audio, options.loop)
    if source.voice is not None:
        source.overheard = OverheardVoice(source.voice)
    return source


async def _take_part(
    room: Room, mien: MienClient, source: _Source, options: JoinOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    links: dict[str, LinkFigures] = {}
    names: dict[str, str] = {}

    def know(one: Participant) -> None:
        if one.participant_id != room.local_id:
            links.setdefault(one.participant_id, LinkFigures())
            names[one.participant_id] = one.identity

    for one in room.participants:
        know(one)
    room.on(RoomEvent.PARTICIPANT_CONNECTED, know)
    publication = await room.publish(voice=source.overheard) if options.publishes else None
    view = room.watch()
    measure(view, links)
    async with view:
        info = room.info
        say(f"In the room {(info and (info.name or info.room_id)) or options.room}; Ctrl-C leaves it.")
        since_s = time.time()
        ends = [asyncio.create_task(room.wait_closed(), name="room-closed")]
        if publication is not None:
            ends.append(asyncio.create_task(_publish(publication, source, mien, room, options, say), name="publish"))
        try:
            done, _ = await asyncio.wait(ends, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises the error that ended it
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        until_s, received = time.time(), await view.received_bytes()
    settled_s = min(since_s + _SETTLE_S, until_s)
    return {
        "room_id": info.room_id if info else None,
        "participants": [{"identity": names[name], **link.as_json(settled_s, until_s)} for name, link in links.items()],
        "uplink_kbit_s": None if publication is None else kbit_s(publication.sent_bytes, until_s - since_s),
        "downlink_kbit_s": kbit_s(received, until_s - since_s),
    }


async def _publish(
    publication: Publication,
    source: _Source,
    mien: MienClient,
    room: Room,
    options: JoinOptions,
    say: Callable[[str], None],
) -> None:
    """Returns when the clip ends; tracks and cameras do not end."""
    if source.track is not None:
        start_s = time.monotonic()
        if isinstance(source.voice, LoopedVoice):
            source.voice.begin(start_s)
        elif source.voice is not None:
            source.voice.begin()
        async for packet in packets(source.track, start_s):
            publication.push(packet)
    assert not isinstance(source.voice, LoopedVoice)
    motion = OutgoingMotion(await _own_keypoints(mien, room), seed=random.getrandbits(16))
    room.on(RoomEvent.REACTION, lambda said: _react(motion, said, room))
    if source.overheard is not None:

        def hear(bands_db: Sequence[float], time_s: float) -> None:
            if not publication.is_muted:  # a muted face must not show that its owner speaks
                motion.hear(bands_db, time_s)

        source.overheard.listener = hear
    if source.pictures is None or source.finder is None or options.clip is None:
        assert source.voice is not None
        source.voice.begin()
        async for packet in faceless(motion):
            publication.push(packet)
        return
    face = FaceWatch(options.clip, say)
    try:
        await speak(beginning(source.voice, source.pictures), source.finder, motion, publication.push, face)
    finally:
        face.end()


def _react(motion: OutgoingMotion, said: Said, room: Room) -> None:
    """Let the own face show the own reaction, whichever connection of this participant sent it."""
    own = room.local_participant
    if own is not None and own.participant_id == said.participant_id and said.text in REACTIONS:
        motion.react(said.text)


async def _own_keypoints(mien: MienClient, room: Room) -> Keypoints:
    """Those of one's own avatar; where only operators may read it, those of the layout of every avatar."""
    own = room.local_participant
    try:
        if own is not None and own.avatar_id is not None:
            return (await mien.avatar(own.avatar_id)).source_keypoints()
    except MienError as error:
        if error.status not in {401, 403}:
            raise
    points = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint], np.float32)
    return Keypoints(points, np.tile(np.eye(2, dtype=np.float32), (len(points), 1, 1)))
