"""What a participant sends to its room: motion and a voice. Over WHIP; motion over a WebSocket while that fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from operator import attrgetter

from aiortc import MediaStreamTrack

from mien_client.api import MienError, NotMien, RoomConnection, Unreachable
from mien_client.room_state import RoomClosed
from mien_client.uplink import Uplink, UplinkClosed
from mien_client.whip import WhipUplink
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.newest import NewestWins

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
#: Motion goes over the WebSocket if WHIP takes longer than this.
_PATIENCE_S = 2.0


class Publication:
    """Connects by itself, and again after a break, until it is closed.

    connection: returns where to connect, once the room has told it. on_voice: called with each packet of Opus before it
    is sent, and its time in the voice, in ticks of 48 kHz. Counters: `connections` that were made over WHIP,
    `superseded` packets, `sent_bytes` of motion. `is_muted`: whether the voice is held back.
    """

    def __init__(
        self,
        connection: Callable[[], Awaitable[RoomConnection]],
        token: str,
        voice: MediaStreamTrack | None,
        on_voice: Callable[[bytes, int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._token = token
        self._voice = voice
        self._on_voice = on_voice
        self._waiting: NewestWins[MotionPacket] = NewestWins(attrgetter("may_be_dropped"))
        self._uplink: WhipUplink | Uplink | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fallback: asyncio.Task[None] | None = None
        self._sent_bytes_before = 0
        self._connected = asyncio.Event()
        self.is_muted = False
        self.connections = 0
        self.superseded = 0
        self.failure = ""  # why the last attempt failed

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes_before + (0 if self._uplink is None else self._uplink.sent_bytes)

    @property
    def over(self) -> str | None:
        """What carries the motion at the moment: "whip", "websocket", or None."""
        return None if self._uplink is None else "whip" if isinstance(self._uplink, WhipUplink) else "websocket"

    def start(self, source: AsyncIterable[MotionPacket] | None) -> None:
        """Begin to connect, and to send what the source gives."""
        self._tasks.add(asyncio.create_task(self._run(), name="publication"))
        if source is not None:
            self._tasks.add(asyncio.create_task(self._pump(source), name="publication-source"))

    async def connected(self) -> None:
        """Return once the motion has a way to the service, for the first time."""
        await self._connected.wait()

    def push(self, packet: MotionPacket) -> None:
        """Send this packet, or keep it until there is a connection: of those that wait, the newest wins."""
        self.superseded += self._waiting.push(packet)
        if self._uplink is not None:
            try:
                for ready in self._waiting.take():
                    self._uplink.push(ready)
            except UplinkClosed:
                self._use(None)

    async def _pump(self, source: AsyncIterable[MotionPacket]) -> None:
        async for packet in source:
            self.push(packet)

    async def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                where = await self._connection()
            except RoomClosed:
                return
            if self._fallback is None or self._fallback.done():
                self._fallback = asyncio.create_task(self._over_websocket(where), name="publication-fallback")
            if where.whip_url is not None:
                try:
                    await self._over_whip(where.whip_url, where)
                    wait_s = _FIRST_WAIT_S
                except (MienError, NotMien, Unreachable) as error:
                    self.failure = str(error)
                    logger.info("no connection over WHIP, trying again", extra={"wait_s": wait_s})
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _over_whip(self, url: str, where: RoomConnection) -> None:
        """Connect, and return when the connection has ended."""
        servers = where.ice_servers
        async with WhipUplink(url, self._token, self._voice, servers, self._on_voice, lambda: self.is_muted) as uplink:
            await self._end_fallback()
            self._use(uplink)
            self.connections += 1
            try:
                self.failure = await uplink.ended()
            finally:
                self._use(None)

    async def _over_websocket(self, where: RoomConnection) -> None:
        await asyncio.sleep(_PATIENCE_S)
        if where.uplink_url is None:
            return
        try:
            async with Uplink(where.uplink_url, self._token) as uplink:
                self._use(uplink)
                try:
                    await asyncio.Event().wait()
                finally:
                    self._use(None)
        except (UplinkClosed, Unreachable) as error:
            logger.info("no uplink over a WebSocket", extra={"reason": str(error)})

    async def _end_fallback(self) -> None:
        if self._fallback is not None:
            self._fallback.cancel()
            await asyncio.gather(self._fallback, return_exceptions=True)

    def _use(self, uplink: WhipUplink | Uplink | None) -> None:
        self._sent_bytes_before = self.sent_bytes
        self._uplink = uplink
        if uplink is not None:
            self._connected.set()

    async def aclose(self) -> None:
        """End the connection."""
        for task in self._tasks:
            task.cancel()
        await self._end_fallback()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
