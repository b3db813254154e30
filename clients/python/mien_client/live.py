"""`mien send`: turn the face in a clip or a camera into motion and send it. Only motion leaves this machine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiortc import MediaStreamTrack

from mien_client.api import Avatar, MienClient, Session
from mien_client.demo import BUNDLED_AVATAR, StatedConsent, avatar_of, new_session
from mien_client.landmarks import LandmarkTool
from mien_client.outgoing import OutgoingMotion
from mien_client.overheard import OverheardVoice
from mien_client.pictures import CameraPictures, ClipPictures, Picture, RgbArray
from mien_client.sound import FileSound
from mien_client.speaking import capture_clock_ms, play
from mien_client.uplink import Uplink
from mien_client.whip import WhipUplink
from mien_encoder.finder import GridFinder, PatientFinder
from mien_encoder.keypoints import KeypointEncoder
from mien_encoder.tracker import FaceTracker
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack

#: Longest side of the pictures in which faces are searched. Larger pictures are scaled down.
_LONGEST_SIDE = 1280
#: The source that means a camera and not a file.
CAMERA = "camera"
#: After this long without any face the speaker is warned.
NO_FACE_S = 5.0


@dataclass(frozen=True)
class SendOptions:
    """What to send, and how.

    source: a clip, a .motion track, or CAMERA. tracker: `encoder` or `landmarks`. smoothing: a key of
    outgoing.SMOOTHING. judged: whether a default motion replaces extreme poses. camera: the camera's device, None for
    the system's default. audio: the file whose sound is the voice, may be the clip itself; None for no voice. consent:
    of the person in the picture, if the avatar is a picture file.
    """

    source: str
    avatar: str = BUNDLED_AVATAR
    url: str = "http://127.0.0.1:8080"
    api_key: str | None = None
    loop: bool = False
    tracker: str = "encoder"
    smoothing: str = "one-euro"
    judged: bool = True
    camera: str | None = None
    audio: str | None = None
    consent: StatedConsent | None = None


class KeypointFinder(Protocol):
    """Finds the keypoints of one face in successive pictures, outside the event loop's thread."""

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        """The keypoints of the face in a picture, (H, W, 3), in crop coordinates. None if there is no face."""


class EncoderFinder:
    """Tracks one face with the keypoint encoder K, in a thread.

    source: CAMERA or a clip. A clip is searched picture by picture, so that its first words are not lost.
    """

    def __init__(self, source: str) -> None:
        encoder = KeypointEncoder()
        finder = GridFinder(encoder) if source == CAMERA else PatientFinder(encoder)
        self._tracker = FaceTracker(encoder, finder)

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        face = await asyncio.to_thread(self._tracker.find, rgb, time_s)
        return None if face is None else face.keypoints


async def send(options: SendOptions, say: Callable[[str], None]) -> None:
    """Send the motion of a source. Returns when a clip ends; a track and a camera never end.

    Raises the errors of the source, the API, the uplink, the track and the tracker's files.
    """
    sound = None if options.audio is None else await asyncio.to_thread(FileSound, options.audio, options.loop)
    overheard = None if sound is None else OverheardVoice(sound)
    if options.source.endswith(".motion"):
        await _send_track(MotionTrack.load(Path(options.source)), options, sound, say)
        return
    async with contextlib.AsyncExitStack() as stack:
        # Before the session: a source that cannot be used needs none.
        pictures = _pictures(options, say)
        await stack.enter_async_context(pictures)
        finder = await _finder(options, stack)
        avatar, uplink = await stack.enter_async_context(_speaking(options, overheard, say))
        motion = OutgoingMotion(
            avatar.source_keypoints(), options.smoothing, judged=options.judged, seed=random.getrandbits(16)
        )
        if overheard is not None:
            overheard.listener = motion.hear
        face = FaceWatch(options.source, say)
        try:
            await speak(beginning(sound, pictures), finder, motion, uplink.push, face)
        finally:
            face.end()
            say(f"Sent {uplink.sent} packets: {motion.account()}; {pictures.late} pictures skipped as too late.")


async def _send_track(
    track: MotionTrack, options: SendOptions, sound: FileSound | None, say: Callable[[str], None]
) -> None:
    async with _speaking(options, sound, say) as (_, uplink):
        if sound is not None:
            sound.begin()
        await play(track, uplink)


async def beginning(sound: FileSound | None, pictures: AsyncIterable[Picture]) -> AsyncIterator[Picture]:
    """The pictures; the sound begins with the first one."""
    async for picture in pictures:
        if sound is not None:
            sound.begin()
        yield picture


@contextlib.asynccontextmanager
async def _speaking(
    options: SendOptions, sound: MediaStreamTrack | None, say: Callable[[str], None]
) -> AsyncIterator[tuple[Avatar, Uplink | WhipUplink]]:
    """The avatar, and the uplink of a new session that shows it: over WHIP if there is a voice."""
    async with MienClient(options.url, options.api_key) as mien:
        avatar_id = await avatar_of(mien, options.avatar, options.consent)
        # The session first: without an operator's key it is refused with words about keys.
        async with new_session(mien, avatar_id) as session:
            avatar = await mien.avatar(avatar_id)
            over_whip = None if sound is None else WhipUplink(session.whip_url, session.token, sound)
            async with over_whip or Uplink(session.uplink_url, session.token) as uplink:
                say(f"Speaking at {_page(options, session)}; Ctrl-C ends it.")
                yield avatar, uplink


def _pictures(options: SendOptions, say: Callable[[str], None]) -> ClipPictures | CameraPictures:
    if options.source == CAMERA:
        return CameraPictures(options.camera)
    return ClipPictures(options.source, options.loop, tell=say)


async def _finder(options: SendOptions, stack: contextlib.AsyncExitStack) -> KeypointFinder:
    if options.tracker == "landmarks":
        return await stack.enter_async_context(LandmarkTool())
    return await asyncio.to_thread(EncoderFinder, options.source)


def _page(options: SendOptions, session: Session) -> str:
    """The address of the session's watch page. It contains the watch token if an API key is used."""
    token = f"&token={session.watch_token}" if options.api_key else ""
    return f"{options.url}/#session={session.session_id}{token}"


class FaceWatch:
    """Warns once if no face is found in the first NO_FACE_S seconds, or in the whole of a shorter clip."""

    def __init__(self, source: str, say: Callable[[str], None]) -> None:
        self._source = source
        self._say = say
        self._since_s: float | None = None
        self._done = False

    def saw(self, found: bool, time_s: float) -> None:
        """Note whether a picture shows a face. time_s: when it was due, monotonic."""
        self._since_s = time_s if self._since_s is None else self._since_s
        if found:
            self._done = True
        elif time_s - self._since_s >= NO_FACE_S:
            self._warn(f"no face found in {self._source} yet: the avatar plays its default motion")

    def end(self) -> None:
        """The source has ended."""
        if self._since_s is not None:
            self._warn(f"no face found in {self._source}: the avatar played its default motion")

    def _warn(self, text: str) -> None:
        if not self._done:
            self._say(text)
        self._done = True


async def speak(
    pictures: AsyncIterable[Picture],
    finder: KeypointFinder,
    motion: OutgoingMotion,
    push: Callable[[MotionPacket], None],
    face: FaceWatch,
) -> None:
    """Send one packet for every picture, with or without a face: a lost face must not look like a stalled uplink."""
    async for picture in pictures:
        capture_ms = capture_clock_ms()
        rgb = await asyncio.to_thread(picture.rgb, _LONGEST_SIDE)
        found = await finder.find(rgb, picture.time_s)
        face.saw(found is not None, picture.time_s)
        push(motion.packet(found, picture.time_s, capture_ms))
