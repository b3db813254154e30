"""A participant's connection to its room: who is there, chat, reactions. It reconnects by itself and misses nothing.

invitation = await mien.join_room(room_id, "ada")
async with Room(invitation.events_url, invitation.token) as room:
    room.on(RoomEvent.CHAT_MESSAGE, lambda said: print(said.text))
    await room.send_message("hello")
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from mien_client.api import Participant, Unreachable, authorization
from mien_client.room_state import RoomEvent, RoomState, Told

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_CONNECT_TIMEOUT_S = 20.0
#: Close codes after which reconnecting is useless: flood, token expired, removed, replaced, room ended, left.
_FINAL_CODES = {1008, 4401, 4403, 4409, 4410, 4411}
_SUBPROTOCOL = "mien.room.v1"
_LARGEST_EVENT_BYTES = 2**20

Callback = Callable[[Any], None]


class RoomClosed(Exception):
    """The service refused or closed this connection for good. The text gives the reason."""


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

    async def connect(self) -> None:
        """Returns when the first state is known. Raises RoomClosed, or Unreachable if the service does not answer."""
        self._task = asyncio.create_task(self._run(), name="room")
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
        """End the connection. The participant stays in the room until the service notices that it is away."""
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
