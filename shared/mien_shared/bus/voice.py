"""The voice channel of a session, on a Redis stream: Opus packets on their way from a speaker to the viewers.

The packets are as the speaker encoded them; nothing here decodes. The stream holds two seconds and expires soon after
its last packet. `push` never waits, the newest packet wins, and every drop is counted (as in channels.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.connection import BLOCK_MS, BUS_ERRORS

VOICE_CAP = 100  # two seconds of one session, at 20 ms a packet
#: Most packets of one session that wait for Redis: half a second. If more come, the oldest are dropped.
PENDING_PACKETS = 25
#: The largest Opus packet of one frame (RFC 6716, section 3.4).
MAX_VOICE_BYTES = 1275
RUN_BYTES = 8

_BEGINNING = b"0-0"
_HEADER = Struct(f"!{RUN_BYTES}sHLBBq")
_MARKER, _LEVEL, _CAPTURE = 1, 2, 4


class VoicePacketError(ValueError):
    """The bytes are not a voice packet as `VoicePacket.pack` writes it."""


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """One Opus packet.

    run: names a stream whose sequence numbers (16 bits) and timestamps (32 bits, 48 kHz) are continuous: another SSRC,
    connection or restart has another run. marker: the first packet after silence. level: 0 (loudest) to 127 (silence),
    -dBov (RFC 6464), None if the speaker does not say. capture_us: when its first sample was recorded, Unix
    microseconds by the speaker's clock, None while that is not known.
    """

    run: bytes
    sequence: int
    timestamp: int
    marker: bool
    level: int | None
    capture_us: int | None
    payload: bytes

    def pack(self) -> bytes:
        flags = _MARKER * self.marker | _LEVEL * (self.level is not None) | _CAPTURE * (self.capture_us is not None)
        header = _HEADER.pack(self.run, self.sequence, self.timestamp, flags, self.level or 0, self.capture_us or 0)
        return header + self.payload

    @classmethod
    def unpack(cls, data: bytes) -> VoicePacket:
        """Raises VoicePacketError."""
        if not _HEADER.size < len(data) <= _HEADER.size + MAX_VOICE_BYTES:
            raise VoicePacketError(f"a voice packet of {len(data)} bytes cannot be read")
        run, sequence, timestamp, flags, level, capture_us = _HEADER.unpack_from(data)
        return cls(
            run,
            sequence,
            timestamp,
            bool(flags & _MARKER),
            level if flags & _LEVEL else None,
            capture_us if flags & _CAPTURE else None,
            data[_HEADER.size :],
        )


class VoicePublisher:
    """The speaker's end of the voice channels. on_drop: takes the number of packets that did not reach Redis."""

    def __init__(self, redis: Redis, on_drop: Callable[[int], None]) -> None:
        self._redis = redis
        self._on_drop = on_drop
        self._pending: dict[str, deque[VoicePacket]] = {}
        self._gathered = asyncio.Event()

    def push(self, session_id: str, packet: VoicePacket) -> None:
        """Queue one packet. If too many wait, the oldest is dropped."""
        waiting = self._pending.setdefault(session_id, deque())
        if len(waiting) >= PENDING_PACKETS:
            waiting.popleft()
            self._on_drop(1)
        waiting.append(packet)
        self._gathered.set()

    async def flush(self) -> None:
        """Wait for packets and send them in one batch. If Redis fails, its error is raised and the packets are lost."""
        await self._gathered.wait()
        self._gathered.clear()
        batch, self._pending = self._pending, {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for session_id, packets in batch.items():
                    for packet in packets:
                        pipe.xadd(keys.voice(session_id), {b"v": packet.pack()}, maxlen=VOICE_CAP, approximate=False)
                    pipe.expire(keys.voice(session_id), keys.VOICE_S)
                await pipe.execute()
        except BUS_ERRORS:
            self._on_drop(sum(map(len, batch.values())))
            raise


class VoiceSubscription:
    """The viewers' end of one session's voice channel. on_unreadable: called for a packet that cannot be read."""

    def __init__(self, redis: Redis, session_id: str, on_unreadable: Callable[[], None] = lambda: None) -> None:
        self._redis = redis
        self._key = keys.voice(session_id)
        self._on_unreadable = on_unreadable
        self._last: bytes | None = None

    def skip(self) -> None:
        """Let the next call of `read` begin with the newest packets, as the first one does."""
        self._last = None

    async def read(self) -> list[VoicePacket]:
        """Packets since the last call, oldest first. The first call skips older ones. Waits at most a second.

        Raises the errors of Redis; the next call then begins with the newest packets.
        """
        try:
            if self._last is None:
                self._last = await self._newest_id() or _BEGINNING
            answer = await self._redis.xread({self._key: self._last}, count=VOICE_CAP, block=BLOCK_MS)
            if not answer:
                await self._after_silence()
        except BUS_ERRORS:
            self._last = None
            raise
        entries = _entries(answer)
        if entries:
            self._last = entries[-1][0]
        return [packet for _, fields in entries if (packet := self._packet(fields)) is not None]

    async def _after_silence(self) -> None:
        """A stream that expired meanwhile, or that a Redis without it began anew, is read from its beginning."""
        assert self._last is not None
        newest = await self._newest_id()
        if newest is None or _order(newest) < _order(self._last):
            self._last = _BEGINNING

    async def _newest_id(self) -> bytes | None:
        newest = await self._redis.xrevrange(self._key, count=1)
        return newest[0][0] if newest else None

    def _packet(self, fields: dict[bytes, bytes]) -> VoicePacket | None:
        try:
            return VoicePacket.unpack(fields.get(b"v", b""))
        except VoicePacketError:
            self._on_unreadable()
            return None


_Entries = list[tuple[bytes, dict[bytes, bytes]]]


def _entries(answer: object) -> _Entries:
    """XREAD's answer for one stream. It is a list of pairs under RESP2 and a map of lists under RESP3."""
    if isinstance(answer, dict):
        return [entry for parts in answer.values() for part in parts for entry in part]
    return [entry for _, entries in answer or () for entry in entries]  # type: ignore[attr-defined]


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
