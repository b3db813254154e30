"""The channels between services, on Redis streams. They are capped, the newest entry wins, and every drop is counted.

`push` never waits. One flusher per channel sends all gathered entries in one round trip. A reader asks for the newest
id once and continues from the last id it has read: an XREAD with `$` in every call loses entries between two calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from operator import attrgetter

from pydantic import ValidationError
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.connection import BLOCK_MS, BUS_ERRORS
from mien_shared.bus.messages import (
    Control,
    EncodedFrame,
    InboundMotion,
    MotionBatchError,
    pack_motion,
    parse_control,
    unpack_motion,
)
from mien_shared.wire.newest import NewestWins

logger = logging.getLogger(__name__)

INBOX_CAP = 512  # batches of motion; one gateway sends one at a time: half a second even at 1 ms a batch
CONTROL_CAP = 1024
VIDEO_CAP = 60  # two seconds of one session
_VIDEO_TTL_S = 30
#: Most frames of one session that wait for Redis: a third of a second. If more come, all are dropped.
PENDING_FRAMES = 10

_BEGINNING = b"0-0"


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A packet that waits for the next batch, and the generator that will receive it."""

    generator_id: str
    motion: InboundMotion
    may_be_dropped: bool


class MotionForwarder:
    """The gateway's end of the inbox: sends the newest packet of each session to the generator that holds it."""

    def __init__(self, redis: Redis, on_drop: Callable[[str, int], None]) -> None:
        """on_drop: takes the reason, "superseded" (by a newer packet) or "redis" (it failed), and the count."""
        self._redis = redis
        self._on_drop = on_drop
        self._pending: dict[str, NewestWins[_Outgoing]] = {}
        self._gathered = asyncio.Event()

    def push(self, generator_id: str, motion: InboundMotion, may_be_dropped: bool = True) -> None:
        """Queue one packet. It replaces a waiting packet of its session that may be dropped."""
        slot = self._pending.get(motion.session_id)
        if slot is None:
            slot = self._pending[motion.session_id] = NewestWins(attrgetter("may_be_dropped"))
        if replaced := slot.push(_Outgoing(generator_id, motion, may_be_dropped)):
            self._on_drop("superseded", replaced)
        self._gathered.set()

    async def flush(self) -> None:
        """Wait for packets and send them in one batch. If Redis fails, its error is raised and the packets are lost."""
        await self._gathered.wait()
        self._gathered.clear()
        pending, self._pending = self._pending, {}
        outgoing = [entry for slot in pending.values() for entry in slot.take()]
        batches: dict[str, list[InboundMotion]] = {}
        for entry in outgoing:
            batches.setdefault(entry.generator_id, []).append(entry.motion)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for generator_id, batch in batches.items():
                    fields = {b"b": pack_motion(batch)}
                    pipe.xadd(keys.inbox(generator_id), fields, maxlen=INBOX_CAP, approximate=True)
                await pipe.execute()
        except BUS_ERRORS:
            self._on_drop("redis", len(outgoing))
            raise


async def send_control(redis: Redis, generator_id: str, message: Control) -> None:
    """Send a generator a control message. Newer messages do not replace it."""
    await redis.xadd(keys.control(generator_id), {b"m": message.to_bytes()}, maxlen=CONTROL_CAP, approximate=True)


@dataclass
class GeneratorInbox:
    """The generator's end of the inbox. One blocking read returns motion and control messages of all its sessions."""

    redis: Redis
    generator_id: str
    _last: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        # A generator's id is new with every start: its streams begin empty, and it must read them from the beginning.
        self._last = {
            keys.inbox(self.generator_id).encode(): _BEGINNING,
            keys.control(self.generator_id).encode(): _BEGINNING,
        }

    async def read(self) -> list[InboundMotion | Control]:
        """Messages since the last call, oldest first within each kind. Waits at most a second."""
        try:
            answer = await self.redis.xread(self._last, count=INBOX_CAP, block=BLOCK_MS)
        except BUS_ERRORS:
            # A server that comes back empty, or whose clock went back, gives ids that are smaller than our last one.
            self._last = dict.fromkeys(self._last, _BEGINNING)
            raise
        messages: list[InboundMotion | Control] = []
        for name, entries in _streams(answer):
            for entry_id, fields in entries:
                self._last[name] = entry_id
                try:
                    if b"m" in fields:
                        messages.append(parse_control(fields[b"m"]))
                    else:
                        messages += unpack_motion(fields[b"b"])
                except (ValidationError, MotionBatchError) as error:
                    logger.warning("unreadable message dropped", extra={"error": str(error)})
        return messages

    async def remove(self) -> None:
        """Delete both streams when the generator ends."""
        await self.redis.delete(*self._last)


class FramePublisher:
    """The generator's end of the video channels."""

    def __init__(self, redis: Redis, on_lost: Callable[[str, int], None]) -> None:
        """on_lost: takes the session id and the number of dropped frames. The session's viewers then need an IDR."""
        self._redis = redis
        self._on_lost = on_lost
        self._pending: dict[str, deque[EncodedFrame]] = {}
        self._gathered = asyncio.Event()

    def push(self, session_id: str, frame: EncodedFrame) -> None:
        """Queue one frame. If too many wait, all waiting frames are dropped, and the viewers need an IDR."""
        waiting = self._pending.setdefault(session_id, deque())
        if len(waiting) >= PENDING_FRAMES:
            self._on_lost(session_id, len(waiting))
            waiting.clear()
        waiting.append(frame)
        self._gathered.set()

    async def flush(self) -> None:
        """Wait for frames and send them in one batch. If Redis fails, its error is raised and the frames are lost."""
        await self._gathered.wait()
        self._gathered.clear()
        batch, self._pending = self._pending, {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for session_id, frames in batch.items():
                    for frame in frames:
                        pipe.xadd(keys.video(session_id), _frame_fields(frame), maxlen=VIDEO_CAP, approximate=False)
                    pipe.expire(keys.video(session_id), _VIDEO_TTL_S)
                await pipe.execute()
        except BUS_ERRORS:
            for session_id, frames in batch.items():
                self._on_lost(session_id, len(frames))
            raise


class VideoSubscription:
    """Signaling's end of one session's video channel."""

    def __init__(self, redis: Redis, session_id: str) -> None:
        self._redis = redis
        self._key = keys.video(session_id)
        self._last: bytes | None = None

    async def read(self) -> list[EncodedFrame]:
        """Frames since the last call, oldest first. The first call skips older frames. Waits at most a second."""
        if self._last is None:
            self._last = await self._newest_id()
        try:
            answer = await self._redis.xread({self._key: self._last}, count=VIDEO_CAP, block=BLOCK_MS)
        except BUS_ERRORS:
            self._last = None
            raise
        frames = []
        for _, entries in _streams(answer):
            for entry_id, fields in entries:
                self._last = entry_id
                frames.append(_frame_of(fields))
        return frames

    async def _newest_id(self) -> bytes:
        newest = await self._redis.xrevrange(self._key, count=1)
        return newest[0][0] if newest else _BEGINNING

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        while True:
            for frame in await self.read():
                yield frame


Entries = list[tuple[bytes, dict[bytes, bytes]]]


def _streams(answer: object) -> list[tuple[bytes, Entries]]:
    """XREAD's answer as (stream, entries). It is a list of pairs under RESP2 and a map of lists under RESP3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(name, [entry for part in parts for entry in part]) for name, parts in answer.items()]
    assert isinstance(answer, list)
    return [(name, entries) for name, entries in answer]


def _frame_fields(frame: EncodedFrame) -> dict[bytes, bytes | str | int]:
    return {b"r": frame.run, b"i": frame.index, b"t": frame.pts_90k, b"k": int(frame.is_idr), b"d": frame.data}


def _frame_of(fields: dict[bytes, bytes]) -> EncodedFrame:
    return EncodedFrame(
        run=fields[b"r"].decode(),
        index=int(fields[b"i"]),
        pts_90k=int(fields[b"t"]),
        is_idr=fields[b"k"] == b"1",
        data=fields[b"d"],
    )
