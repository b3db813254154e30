"""One participant's connection to its room's events: what waits to be sent, and why it closes.

A queue of events waits for a client that reads slowly. It is bounded by number and by bytes; a client that is owed more
is cut off. Nothing is dropped from the middle, because a client must miss no event that it does not know of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from fastapi import WebSocket, WebSocketDisconnect

from mien_shared.bus.rooms import Connected

#: What may wait to be sent to one client, beside the socket's own buffer.
MAX_WAITING = 1024
MAX_WAITING_BYTES = 2**20
_CLOSE_TIMEOUT_S = 2.0


class CloseCode(IntEnum):
    """Why the gateway closes a connection to a room's events (RFC 6455, section 7.4). Codes from 4000 are Mien's.

    A client may reconnect with `?since=` after a code that `may_reconnect` names, and after a loss without a code.
    """

    FLOOD = 1008  # too many messages, or too many that cannot be read
    TOO_BIG = 1009  # a message was longer than MAX_MESSAGE_BYTES
    FAILED = 1011  # the gateway failed
    RESTART = 1012  # the gateway is shutting down
    TOKEN_EXPIRED = 4401
    REMOVED = 4403  # a moderator or an operator removed the participant
    NOT_READ = 4408  # the client did not read what it was owed; it gets no code
    REPLACED = 4409  # a newer connection of the same participant
    ROOM_ENDED = 4410
    LEFT = 4411  # the participant has left, by itself or by a limit

    @property
    def may_reconnect(self) -> bool:
        return self in {CloseCode.TOO_BIG, CloseCode.FAILED, CloseCode.RESTART, CloseCode.NOT_READ}


@dataclass(eq=False)
class RoomConnection:
    """An open connection.

    now: the participant and its room as this gateway knows them. cursor: the sequence number of the newest event that
    was considered for this client. needs_state: the client gets the whole state next, instead of missed events.
    told: the newest state of each kind that the client was told since then.
    """

    socket: WebSocket
    now: Connected
    expires_unix_s: float
    cursor: int = 0
    needs_state: bool = False
    close_code: CloseCode | None = None
    told: dict[str, str] = field(default_factory=dict)
    _close_reason: str = ""
    _waiting: deque[str] = field(default_factory=deque)
    _waiting_bytes: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def participant_id(self) -> str:
        return self.now.participant.participant_id

    @property
    def room_id(self) -> str:
        return self.now.room.room_id

    def push(self, text: str) -> None:
        """Queue an event; never waits. Cuts the client off if too much waits."""
        if self.close_code is not None:
            return
        self._waiting.append(text)
        self._waiting_bytes += len(text)
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting.clear()
            self.close(CloseCode.NOT_READ, "the client did not read")
        self._wake.set()

    def tell(self, kind: str, text: str) -> None:
        """Queue a state of this kind, unless it is the one that the client was told last."""
        if self.told.get(kind) != text:
            self.told[kind] = text
            self.push(text)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what waits has been sent. The first reason counts."""
        if self.close_code is None:
            self.close_code, self._close_reason = code, reason
            self._wake.set()
            self._closing.set()

    async def serve(self, read: asyncio.Task[int]) -> int:
        """Send what waits until the connection closes; returns the code. read: handles what the client sends."""
        writing = asyncio.create_task(self._write(), name="room events")
        closing = asyncio.create_task(self._closing.wait(), name="room close")
        try:
            await asyncio.wait({read, writing, closing}, return_when=asyncio.FIRST_COMPLETED)
            if self.close_code is not None and self.close_code is not CloseCode.NOT_READ and not read.done():
                await asyncio.wait({writing}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            for task in (read, writing, closing):
                task.cancel()
            await asyncio.gather(read, writing, closing, return_exceptions=True)
        if self.close_code is not None:
            return int(self.close_code)
        return read.result() if not read.cancelled() and read.exception() is None else int(CloseCode.FAILED)

    async def _write(self) -> None:
        try:
            while True:
                while self._waiting:
                    text = self._waiting.popleft()
                    self._waiting_bytes -= len(text)
                    await self.socket.send_text(text)
                if self.close_code is not None:
                    await self.socket.close(self.close_code, self._close_reason)
                    return
                self._wake.clear()
                await self._wake.wait()
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # the client has left
