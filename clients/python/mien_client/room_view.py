"""The pictures and voices of the others in a room, over one connection with slots that the service fills."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

from aiortc.mediastreams import MediaStreamError

from mien_client.api import MienError, NotMien, RoomConnection, SlotList, Unreachable
from mien_client.room_state import RoomClosed
from mien_client.voice_packets import VoicePacket
from mien_client.whep import ReceivedFrame, ReceivedSound, ReceivingSlot, WhepConnection, WhepError

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_CONNECT_TIMEOUT_S = 20.0
#: What waits for a reader that iterates: two pictures, a second of sound.
_MOST_FRAMES, _MOST_SOUNDS = 2, 50
#: The problem code of a connection whose participant has a newer one.
_REPLACED = "viewer-replaced"

T = TypeVar("T")


class _Newest(Generic[T]):
    """A queue for one reader; the oldest items are dropped if it does not keep up."""

    def __init__(self, most: int) -> None:
        self._items: deque[T] = deque(maxlen=most)
        self._wake = asyncio.Event()

    def push(self, item: T) -> None:
        self._items.append(item)
        self._wake.set()

    async def next(self) -> T:
        while not self._items:
            self._wake.clear()
            await self._wake.wait()
        return self._items.popleft()


class RoomView:
    """An async context manager: inside it, pictures and voices arrive, by participant.

    connection: returns where to connect, once the room has told it. slots: returns who is in which slot of one's newest
    connection. It connects again after a break. `connections`: how many were made.
    """

    def __init__(
        self,
        connection: Callable[[], Awaitable[RoomConnection]],
        slots: Callable[[], SlotList | None],
        token: str,
        count: int,
    ) -> None:
        self._connection = connection
        self._slots = slots
        self._token = token
        self._count = count
        self._current: WhepConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._frame_sinks: list[Callable[[str, ReceivedFrame], None]] = []
        self._sound_sinks: list[Callable[[str, ReceivedSound], None]] = []
        self._voice_sinks: list[Callable[[str, VoicePacket], None]] = []
        self._received_before = 0
        self.connections = 0
        self.failure = ""  # why the last connection failed or ended

    def on_frame(self, call: Callable[[str, ReceivedFrame], None]) -> None:
        """Call this with a participant's id and each of its pictures. It must not block."""
        self._frame_sinks.append(call)

    def on_sound(self, call: Callable[[str, ReceivedSound], None]) -> None:
        """Call this with a participant's id and each 20 ms of its decoded voice. It must not block."""
        self._sound_sinks.append(call)

    def on_voice(self, call: Callable[[str, VoicePacket], None]) -> None:
        """Call this with a participant's id and each packet of its voice, undecoded. It must not block."""
        self._voice_sinks.append(call)

    async def frames(self, participant_id: str) -> AsyncGenerator[ReceivedFrame, None]:
        """A participant's pictures as they arrive, while it has a slot. Never ends. Late readers miss pictures."""
        async for frame in _of(participant_id, self._frame_sinks, _MOST_FRAMES):
            yield frame

    async def sound(self, participant_id: str) -> AsyncGenerator[ReceivedSound, None]:
        """A participant's voice as it arrives, while it has a slot. Never ends."""
        async for sound in _of(participant_id, self._sound_sinks, _MOST_SOUNDS):
            yield sound

    async def received_bytes(self) -> int:
        """Bytes received by all connections so far, including RTP and RTCP headers."""
        now = 0 if self._current is None else await self._current.received_bytes()
        return self._received_before + now

    def occupants(self) -> Mapping[int, str]:
        """Who is in which slot of the present connection."""
        told, current = self._slots(), self._current
        if told is None or current is None or told.viewer_id != current.viewer_id:
            return {}
        return {one.slot: one.participant_id for one in told.slots if one.participant_id is not None}

    async def __aenter__(self) -> Self:
        """Connect. Raises the error of the first attempt, or WhepError after 20 s."""
        self._task = asyncio.create_task(self._run(), name="room-view")
        connected = asyncio.create_task(self._connected.wait())
        try:
            done, _ = await asyncio.wait(
                {self._task, connected}, timeout=_CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if connected not in done:
                if self._task in done:
                    self._task.result()  # raises, unless the room has closed
                raise WhepError(f"no connection to the room's media: {self.failure or 'timeout'}")
        except BaseException:
            await self.aclose()
            raise
        finally:
            connected.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                where = await self._connection()
            except RoomClosed as error:
                self.failure = str(error)
                return
            if where.whep_url is None:
                raise WhepError("this participant may not watch its room: it has no grant for it")
            try:
                if await self._watch(where.whep_url, where):
                    return
                wait_s = _FIRST_WAIT_S
            except (MienError, NotMien, Unreachable, WhepError) as error:
                if not self.connections and isinstance(error, MienError) and error.status < 500:
                    raise
                self.failure = str(error)
                logger.info("no connection to the room's media, trying again", extra={"wait_s": wait_s})
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _watch(self, url: str, where: RoomConnection) -> bool:
        """Connect, and return when the connection has ended: whether for good."""
        async with WhepConnection(url, self._token, where.ice_servers, self._count, self._voice) as connection:
            self._current = connection
            self.connections += 1
            self._connected.set()
            pumps = [
                asyncio.create_task(pump(number, slot))
                for number, slot in enumerate(connection.slots)
                for pump in (self._pictures, self._sound)
            ]
            try:
                await connection.lost.wait()
            finally:
                self._received_before += await connection.received_bytes()
                self._current = None
                for pump in pumps:
                    pump.cancel()
            ended = await connection.leave()
            self.failure = "the connection was lost" if ended is None else ended.detail
            return ended is not None and ended.code == _REPLACED

    def _voice(self, slot: int, packet: VoicePacket) -> None:
        _give(self._voice_sinks, self.occupants().get(slot), packet)

    async def _pictures(self, number: int, slot: ReceivingSlot) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                _give(self._frame_sinks, self.occupants().get(number), await slot.next_picture())

    async def _sound(self, number: int, slot: ReceivingSlot) -> None:
        with contextlib.suppress(MediaStreamError):
            while slot.sound is not None:
                _give(self._sound_sinks, self.occupants().get(number), await slot.next_sound())


def _give(sinks: list[Callable[[str, T], None]], participant_id: str | None, item: T) -> None:
    if participant_id is None:  # the service has not said yet who is in the slot
        return
    for call in sinks:
        try:
            call(participant_id, item)
        except Exception:
            logger.exception("a callback of a room's media failed")


async def _of(participant_id: str, sinks: list[Callable[[str, T], None]], most: int) -> AsyncIterator[T]:
    queue: _Newest[T] = _Newest(most)

    def push(of: str, item: T) -> None:
        if of == participant_id:
            queue.push(item)

    sinks.append(push)
    try:
        while True:
            yield await queue.next()
    finally:
        sinks.remove(push)
