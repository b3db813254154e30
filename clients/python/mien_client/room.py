"""A participant's connection to its room: who is there, chat, pictures and voices. It reconnects by itself.

invitation = await mien.join_room(room_id, "ada")
async with Room(invitation.events_url, invitation.token) as room:
    room.on(RoomEvent.CHAT_MESSAGE, lambda said: print(said.text))
    await room.send_message("hello")
    await room.publish(motion, voice)
    async with room.watch() as view:
        async for frame in view.frames(participant_id):
            ...
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from aiortc import MediaStreamTrack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from mien_client.api import ActiveSpeaker, Participant, RoomConnection, RoomInfo, Unreachable, authorization
from mien_client.publication import Publication
from mien_client.room_state import RoomClosed, RoomEvent, RoomState, Told
from mien_client.room_view import RoomView
from mien_shared.wire.motion import MotionPacket

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_CONNECT_TIMEOUT_S = 20.0
#: Close codes after which reconnecting is useless: flood, token expired, removed, replaced, room ended, left.
_FINAL_CODES = {1008, 4401, 4403, 4409, 4410, 4411}
_DEFAULT_SLOTS = 12
_SUBPROTOCOL = "mien.room.v1"
_LARGEST_EVENT_BYTES = 2**20

Callback = Callable[[Any], None]


class Room:
    """An async context manager: inside it the room's state is known, or the participant waits in the lobby."""

    def __init__(self, events_url: str, token: str, connect_timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
        self._url = events_url
        self._token = token
        self._connect_timeout_s = connect_timeout_s
        self._callbacks: dict[RoomEvent, list[Callback]] = {}
        self._state = RoomState()
        self._socket: ClientConnection | None = None
        self._ready = asyncio.Event()
        self._failure = ""  # why the last attempt to connect failed
        self._task: asyncio.Task[None] | None = None
        self._publication: Publication | None = None
        self._told_connection = asyncio.Event()

    def on(self, event: RoomEvent, callback: Callback) -> None:
        """Call `callback` at each such event, with what `RoomEvent` says. It must not block."""
        self._callbacks.setdefault(event, []).append(callback)

    @property
    def participants(self) -> list[Participant]:
        """Everyone in the room, this participant too. Moderators see those in the lobby as well."""
        return list(self._state.participants.values())

    @property
    def local_participant(self) -> Participant | None:
        """None while it waits in the lobby."""
        return self._state.participants.get(self._state.local_id or "")

    @property
    def local_id(self) -> str | None:
        """This participant's id; None before the room has told it."""
        return self._state.local_id

    @property
    def info(self) -> RoomInfo | None:
        """The room; None while this participant waits in the lobby."""
        return self._state.info

    @property
    def active_speakers(self) -> list[ActiveSpeaker]:
        """Who is heard, the loudest first."""
        return list(self._state.active_speakers)

    async def publish(
        self,
        source: AsyncIterable[MotionPacket] | None = None,
        voice: MediaStreamTrack | None = None,
        on_voice: Callable[[bytes, int], None] | None = None,
    ) -> Publication:
        """Send motion and a voice until the room is closed. The voice is held back while this participant is muted.

        source: gives the packets; without it use the publication's `push`. on_voice: called with each packet of
        Opus before it is sent, and its time in the voice (48 kHz). A second call replaces the first.
        """
        if self._publication is not None:
            await self._publication.aclose()
        self._publication = Publication(self._connection, self._token, voice, on_voice)
        self._obey_mute()
        self._publication.start(source)
        return self._publication

    def watch(self, slots: int = _DEFAULT_SLOTS) -> RoomView:
        """A view of the others. slots: how many of them at once."""
        return RoomView(self._connection, lambda: self._state.slots, self._token, slots)

    async def _connection(self) -> RoomConnection:
        """Where to connect, as soon as the room has told it. Raises RoomClosed."""
        while True:
            if self._task is not None and self._task.done() and not self._task.cancelled():
                self._task.result()  # raises
            if self._state.connection is not None:
                return self._state.connection
            self._told_connection.clear()
            await self._told_connection.wait()

    def _obey_mute(self) -> None:
        own = self.local_participant
        if self._publication is not None and own is not None:
            self._publication.is_muted = own.muted

    async def connect(self) -> None:
        """Returns when the first state is known. Raises RoomClosed, or Unreachable if the service does not answer."""
        self._task = asyncio.create_task(self._run(), name="room")
        self._task.add_done_callback(lambda _: self._told_connection.set())  # what waits for it sees the end
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {self._task, ready}, timeout=self._connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not ready.done():
                if self._task.done():
                    self._task.result()  # raises
                raise Unreachable(f"{self._url} does not answer: {self._failure or 'timeout'}")
        except BaseException:
            ready.cancel()
            await self.close()
            raise

    async def wait_closed(self) -> None:
        """Wait until the service closes the connection for good; raises RoomClosed."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """End all connections. The participant stays in the room until the service notices that it is away."""
        if self._publication is not None:
            await self._publication.aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def leave(self) -> None:
        """Leave the room for good."""
        await self._send(type="leave")
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=self._connect_timeout_s)
        await self.close()

    async def send_message(self, text: str) -> None:
        await self._send(type="message", text=text)

    async def send_reaction(self, reaction: str) -> None:
        await self._send(type="reaction", reaction=reaction)

    async def set_muted(self, muted: bool) -> None:
        await self._send(type="mute", muted=muted)

    async def raise_hand(self, raised: bool = True) -> None:
        await self._send(type="hand", raised=raised)

    async def _send(self, **message: Any) -> None:
        """Raises RoomClosed for good, or Unreachable while the connection is broken."""
        if self._task is not None and self._task.done():
            self._task.result()
        if self._socket is None:
            raise Unreachable(f"not connected to the room: {self._failure or 'reconnecting'}")
        try:
            await self._socket.send(json.dumps(message))
        except ConnectionClosed as error:
            raise Unreachable("the connection to the room broke while sending") from error

    async def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                async with connect(
                    self._resume_url(),
                    additional_headers=authorization(self._token),
                    subprotocols=[_SUBPROTOCOL],  # type: ignore[list-item]
                    max_size=_LARGEST_EVENT_BYTES,
                    proxy=None,
                ) as socket:
                    self._socket = socket
                    wait_s = _FIRST_WAIT_S
                    await self._receive(socket)
            except InvalidStatus as error:
                status = error.response.status_code
                if status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._end(f"the service refused the room with HTTP status {status}", error)
                self._failure = str(error)
            except ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code in _FINAL_CODES:
                    self._end(error.rcvd.reason or str(error.rcvd.code), error)
                self._failure = str(error)
            except InvalidURI as error:
                self._end(f"the address of the room's events is none: {error}", error)
            except (OSError, TimeoutError, InvalidHandshake) as error:
                self._failure = str(error) or type(error).__name__
            finally:
                self._socket = None
            self._tell([(RoomEvent.RECONNECTING, self._failure)])
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _resume_url(self) -> str:
        return self._url if self._state.sequence is None else f"{self._url}?since={self._state.sequence}"

    async def _receive(self, socket: ClientConnection) -> None:
        is_again = self._ready.is_set()
        while True:
            event = json.loads(await socket.recv())
            told = self._state.apply(event)
            self._obey_mute()
            if self._state.connection is not None:
                self._told_connection.set()
            if is_again and event["type"] in {"room", "resumed", "waiting"}:
                is_again = False
                told.insert(0, (RoomEvent.RECONNECTED, event["type"] == "resumed"))
            self._tell(told)
            if event["type"] in {"room", "waiting"}:
                self._ready.set()

    def _end(self, reason: str, error: Exception) -> None:
        self._tell([(RoomEvent.DISCONNECTED, reason)])
        raise RoomClosed(reason) from error

    def _tell(self, told: list[Told]) -> None:
        for event, value in told:
            for callback in self._callbacks.get(event, []):
                try:
                    callback(value)
                except Exception:
                    logger.exception("a callback of a room failed")

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
