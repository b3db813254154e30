"""The channels between services, on Redis streams. They are capped, the newest entry wins, and every drop is counted.
Each expires soon after its last entry, and motion is deleted after two seconds (`keys.LIVES`).

`push` never waits. One flusher per channel sends all gathered entries in one round trip. A reader asks for the newest
id once and continues from the last id it has read: an XREAD with `$` in every call loses entries between two calls.
After a failure it continues there too, or it would read everything again. If the stream began anew, it is read from its
beginning. If a replica has become the master and lacks what was read last, it is read from where both agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
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
from mien_shared.bus.trip import Script, Trip
from mien_shared.wire.newest import NewestWins

logger = logging.getLogger(__name__)

INBOX_CAP = 512  # batches of motion; one gateway sends one at a time: half a second even at 1 ms a batch
CONTROL_CAP = 1024
VIDEO_CAP = 60  # two seconds of one session
#: Most frames of one session that wait for Redis: a third of a second. If more come, all are dropped.
PENDING_FRAMES = 10
#: How many of the ids that were read are remembered for each stream. A replica that is further behind is read anew.
_REMEMBERED_IDS = 512

_BEGINNING = b"0-0"

# Appends motion, and deletes what is too old or too much. The age is counted by the server's clock, so that a gateway
# whose clock is wrong cannot delete motion that is new. KEYS: stream. ARGV: motion, entries, age in ms, life in ms.
_APPEND_MOTION = Script("""
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'b', ARGV[1])
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', tonumber(string.match(id, '^%d+')) - ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
""")

# Appends a frame. One command instead of two: redis-py takes longer for a command than Redis does. The stream gets its
# life in the same step, so that a frame that arrives after the session's end cannot create a stream that stays.
# KEYS: stream. ARGV: entries, life in seconds, then the fields r, i, t, k and d.
_APPEND_FRAME = Script("""
local run, index, pts, is_idr, data = unpack(ARGV, 3)
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 'r', run, 'i', index, 't', pts, 'k', is_idr, 'd', data)
redis.call('EXPIRE', KEYS[1], ARGV[2])
""")


class DropReason(StrEnum):
    """Why motion was dropped before it reached a generator's inbox."""

    SUPERSEDED = "superseded"  # by a newer packet of its session
    REDIS = "redis"  # it failed


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A packet that waits for the next batch, and the generator that will receive it."""

    generator_id: str
    motion: InboundMotion
    may_be_dropped: bool


class MotionForwarder:
    """The gateway's end of the inbox: sends the newest packet of each session to the generator that holds it."""

    def __init__(self, redis: Redis, on_drop: Callable[[DropReason, int], None]) -> None:
        """on_drop: takes the reason and the number of packets."""
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
            self._on_drop(DropReason.SUPERSEDED, replaced)
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
        trip, age_ms, life_ms = Trip(self._redis), round(keys.MOTION_S * 1000), round(keys.INBOX_S * 1000)
        for generator_id, batch in batches.items():
            trip.run(_APPEND_MOTION, [keys.inbox(generator_id)], [pack_motion(batch), INBOX_CAP, age_ms, life_ms])
        try:
            await trip.go()
        except BUS_ERRORS:
            self._on_drop(DropReason.REDIS, len(outgoing))
            raise


async def send_control(redis: Redis, generator_id: str, message: Control) -> None:
    """Send a generator a control message. Newer messages do not replace it."""
    name, fields, trip = keys.control(generator_id), {b"m": message.to_bytes()}, Trip(redis)
    trip.add(lambda pipe: pipe.xadd(name, fields, maxlen=CONTROL_CAP, approximate=True))
    trip.add(lambda pipe: pipe.pexpire(name, round(keys.CONTROL_S * 1000)))
    await trip.go()


@dataclass
class GeneratorInbox:
    """The generator's end of the inbox. One blocking read returns motion and control messages of all its sessions."""

    redis: Redis
    generator_id: str
    _places: dict[bytes, _Place] = field(init=False)
    _may_be_new: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        # A generator's id is new with every start: its streams begin empty, and it must read them from the beginning.
        names = (keys.inbox(self.generator_id), keys.control(self.generator_id))
        self._places = {name.encode(): _Place(_BEGINNING) for name in names}

    async def read(self) -> list[InboundMotion | Control]:
        """Messages since the last call, oldest first within each kind. Waits at most a second."""
        if self._may_be_new:
            await _check(self.redis, self._places)
        self._may_be_new = True  # if this read fails
        last = {name: place.last for name, place in self._places.items()}
        answer = _streams(await self.redis.xread(last, count=INBOX_CAP, block=BLOCK_MS))
        self._may_be_new = not any(name == keys.inbox(self.generator_id).encode() for name, _ in answer)
        messages: list[InboundMotion | Control] = []
        for name, entries in answer:
            for entry_id, fields in entries:
                self._places[name].read(entry_id)
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
        await self.redis.delete(*self._places)


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
        trip = Trip(self._redis)
        for session_id, frames in batch.items():
            for frame in frames:
                trip.run(_APPEND_FRAME, [keys.video(session_id)], [VIDEO_CAP, keys.VIDEO_S, *_frame_values(frame)])
        try:
            await trip.go()
        except BUS_ERRORS:
            for session_id, frames in batch.items():
                self._on_lost(session_id, len(frames))
            raise


class VideoSubscription:
    """Signaling's end of one session's video channel."""

    def __init__(self, redis: Redis, session_id: str) -> None:
        self._redis = redis
        self._key = keys.video(session_id)
        self._place: _Place | None = None

    async def read(self) -> list[EncodedFrame]:
        """Frames since the last call, oldest first. The first call skips older frames. Waits at most a second."""
        if self._place is None:
            self._place = _Place(await self._newest_id())
        try:
            answer = await self._redis.xread({self._key: self._place.last}, count=VIDEO_CAP, block=BLOCK_MS)
        except BUS_ERRORS:
            self._place = None
            raise
        frames = []
        for _, entries in _streams(answer):
            for entry_id, fields in entries:
                self._place.read(entry_id)
                frames.append(_frame_of(fields))
        if not frames:
            await _check(self._redis, {self._key.encode(): self._place})
        return frames

    async def _newest_id(self) -> bytes:
        newest = await self._redis.xrevrange(self._key, count=1)
        return newest[0][0] if newest else _BEGINNING

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        while True:
            for frame in await self.read():
                yield frame


Entries = list[tuple[bytes, dict[bytes, bytes]]]


class _Place:
    """How far a stream was read, and the ids that were read before."""

    def __init__(self, last: bytes) -> None:
        self._ids = deque([last], maxlen=_REMEMBERED_IDS)

    @property
    def last(self) -> bytes:
        return self._ids[-1]

    def read(self, entry_id: bytes) -> None:
        self._ids.append(entry_id)

    def go_back(self, newest_first: Iterable[bytes]) -> None:
        """Continue from the newest of these ids that was read, or from the beginning if none was."""
        known = set(self._ids)
        where = next((entry_id for entry_id in newest_first if entry_id in known), _BEGINNING)
        while self._ids and self._ids[-1] != where:
            self._ids.pop()
        if not self._ids:
            self._ids.append(where)


async def _check(redis: Redis, places: dict[bytes, _Place]) -> None:
    """After silence or a failure: correct the places in streams whose newest id is behind what was read last.

    A new master's stream lacks the last entries if it was a replica behind the old master. A server that came back
    empty has none, or new ones, whose ids are behind ours if its clock is.
    """
    trip = Trip(redis)
    for name in places:
        trip.add(lambda pipe, name=name: pipe.xrevrange(name, count=1))  # type: ignore[misc]
    for (name, place), newest in zip(places.items(), await trip.go(), strict=True):
        if not newest:
            place.go_back([])
        elif _order(newest[0][0]) < _order(place.last):
            place.go_back(entry_id for entry_id, _ in await redis.xrevrange(name, count=_REMEMBERED_IDS))


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _streams(answer: object) -> list[tuple[bytes, Entries]]:
    """XREAD's answer as (stream, entries). It is a list of pairs under RESP2 and a map of lists under RESP3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(name, [entry for part in parts for entry in part]) for name, parts in answer.items()]
    assert isinstance(answer, list)
    return [(name, entries) for name, entries in answer]


def _frame_values(frame: EncodedFrame) -> tuple[str, int, int, int, bytes]:
    """In the order of _APPEND_FRAME."""
    return frame.run, frame.index, frame.pts_90k, int(frame.is_idr), frame.data


def _frame_of(fields: dict[bytes, bytes]) -> EncodedFrame:
    return EncodedFrame(
        run=fields[b"r"].decode(),
        index=int(fields[b"i"]),
        pts_90k=int(fields[b"t"]),
        is_idr=fields[b"k"] == b"1",
        data=fields[b"d"],
    )
