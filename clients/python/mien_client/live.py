"""`mien send`: turn the face in a clip or a camera into motion and send it. Only motion leaves this machine."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from mien_client.api import MienClient, Session
from mien_client.demo import BUNDLED_AVATAR, avatar_of, speaking_session
from mien_client.landmarks import LandmarkTool
from mien_client.outgoing import OutgoingMotion
from mien_client.speaking import capture_clock_ms, play
from mien_encoder.finder import FaceFinder
from mien_encoder.keypoints import KeypointEncoder
from mien_encoder.tracker import FaceTracker
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack

#: Longest side of the pictures in which faces are searched. Larger pictures are scaled down.
_LONGEST_SIDE = 1280
#: A clip's picture that is later than this is skipped: newest wins.
_TOO_LATE_S = 0.1

RgbArray = NDArray[np.uint8]


@dataclass(frozen=True)
class SendOptions:
    """What to send, and how.

    source: a clip, a .motion track, or `camera`. tracker: `encoder` or `landmarks`. smoothing: a key of
    outgoing.SMOOTHING. judged: whether a default motion replaces extreme poses.
    """

    source: str
    avatar: str = BUNDLED_AVATAR
    url: str = "http://127.0.0.1:8080"
    api_key: str | None = None
    loop: bool = False
    tracker: str = "encoder"
    smoothing: str = "one-euro"
    judged: bool = True


class KeypointFinder(Protocol):
    """Finds the keypoints of one face in successive pictures, outside the event loop's thread."""

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        """The keypoints of the face in a picture, (H, W, 3), in crop coordinates. None if there is no face."""


class EncoderFinder:
    """Tracks one face with the keypoint encoder K, in a thread."""

    def __init__(self) -> None:
        self._tracker = FaceTracker(KeypointEncoder(), FaceFinder())

    async def find(self, rgb: RgbArray, time_s: float) -> Keypoints | None:
        face = await asyncio.to_thread(self._tracker.find, rgb, time_s)
        return None if face is None else face.keypoints


async def send(options: SendOptions, say: Callable[[str], None]) -> None:
    """Send the motion of a source. Returns when a clip ends; a track and a camera never end.

    Raises the errors of the API, the uplink, the track, the tracker's files and FFmpeg.
    """
    track = MotionTrack.load(Path(options.source)) if options.source.endswith(".motion") else None
    async with contextlib.AsyncExitStack() as stack:
        finder = None if track else await _finder(options.tracker, stack)
        mien = await stack.enter_async_context(MienClient(options.url, options.api_key))
        avatar = await mien.avatar(await avatar_of(mien, options.avatar))
        session, uplink = await stack.enter_async_context(speaking_session(mien, avatar.avatar_id))
        say(f"Speaking at {_page(options, session)}; Ctrl-C ends it.")
        if track is not None:
            await play(track, uplink)
        assert finder is not None  # play() never returns
        seed = random.getrandbits(16)
        motion = OutgoingMotion(avatar.source_keypoints(), options.smoothing, judged=options.judged, seed=seed)
        pictures = Pictures(options.source, options.loop)
        try:
            await speak(pictures, finder, motion, uplink.push)
        finally:
            say(f"Sent {uplink.sent} packets: {motion.account()}; {pictures.late} pictures skipped as too late.")


async def _finder(tracker: str, stack: contextlib.AsyncExitStack) -> KeypointFinder:
    if tracker == "landmarks":
        return await stack.enter_async_context(LandmarkTool())
    return await asyncio.to_thread(EncoderFinder)


def _page(options: SendOptions, session: Session) -> str:
    """The address of the session's watch page. It contains the watch token if an API key is used."""
    token = f"&token={session.watch_token}" if options.api_key else ""
    return f"{options.url}/#session={session.session_id}{token}"


async def speak(
    pictures: Pictures, finder: KeypointFinder, motion: OutgoingMotion, push: Callable[[MotionPacket], None]
) -> None:
    """Send one packet for every picture, with or without a face: a lost face must not look like a stalled uplink."""
    async for picture in pictures:
        capture_ms = capture_clock_ms()
        rgb = await asyncio.to_thread(_rgb, picture.frame)
        found = await finder.find(rgb, picture.time_s)
        push(motion.packet(found, picture.time_s, capture_ms))


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to send now. time_s: the monotonic time at which it was due."""

    time_s: float
    frame: av.VideoFrame


class Pictures:
    """The pictures of a clip at the clip's own pace, or those of the first camera as they arrive.

    loop: repeat the clip without end. `late` counts the pictures of a clip that were skipped because the consumer was
    too slow.
    """

    def __init__(
        self,
        source: str,
        loop: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._loop = loop
        self._clock_s = clock_s
        self._sleep = sleep
        self.late = 0

    async def __aiter__(self) -> AsyncIterator[Picture]:
        live = self._source == "camera"
        while True:
            start_s = self._clock_s()
            with contextlib.closing(_decoded(self._source)) as decoded:
                while (entry := await asyncio.to_thread(next, decoded, None)) is not None:
                    at_s, frame = entry
                    now_s = self._clock_s()
                    due_s = now_s if live else start_s + at_s
                    if now_s - due_s > _TOO_LATE_S:
                        self.late += 1
                        continue
                    await self._sleep(max(0.0, due_s - now_s))
                    yield Picture(due_s, frame)
            if live or not self._loop:
                return


def _decoded(source: str) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """(seconds since the start, picture) of every picture in a source."""
    if source == "camera":
        opened = av.open("/dev/video0", format="v4l2", options={"framerate": "30", "video_size": "640x480"})
    else:
        opened = av.open(source)
    with opened as container:
        for frame in container.decode(video=0):
            yield frame.time or 0.0, frame


def _rgb(frame: av.VideoFrame) -> RgbArray:
    """(H, W, 3), scaled down so that no side exceeds _LONGEST_SIDE."""
    scale = min(1.0, _LONGEST_SIDE / max(frame.width, frame.height))
    width, height = round(frame.width * scale), round(frame.height * scale)
    return frame.to_ndarray(format="rgb24", width=width, height=height).astype(np.uint8, copy=False)
