"""What participants say on their events connections: how much of it is taken, and what it does."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from mien_gateway.room_connection import CloseCode, RoomConnection
from mien_gateway.room_views import (
    CLIENT_MESSAGE,
    ClientMessage,
    Leave,
    SendMessage,
    SendReaction,
    SetHand,
    SetMuted,
)
from mien_gateway.rooms import RoomDesk
from mien_shared.bus.room_messages import EventType, LeaveReason, RoomEvent
from mien_shared.http.problems import Code, Problem, redis_problems

#: The longest message that a client may send, in bytes: a text of 2000 characters fits, even if all are escaped.
MAX_MESSAGE_BYTES = 32 * 1024
#: Messages a second on average, and how many may come at once.
_PER_SECOND, _BURST = 5.0, 20.0
#: With so many refused messages the client is cut off. They are forgotten at the rate at which messages are taken, so a
#: client that goes on sending too fast is cut off, however fast. It hears of the first one.
_MOST_REFUSED = 50


@dataclass
class MessageBudget:
    """A token bucket for one connection. Pure: the time is an argument, in seconds.

    refused: refused messages that are not forgotten yet.
    """

    then_s: float
    tokens: float = _BURST
    refused: float = 0.0

    def takes(self, now_s: float) -> bool:
        passed = (now_s - self.then_s) * _PER_SECOND
        self.then_s = now_s
        self.tokens = min(_BURST, self.tokens + passed)
        self.refused = max(0.0, self.refused - passed)
        if self.tokens < 1:
            self.refused += 1
            return False
        self.tokens -= 1
        return True

    @property
    def has_begun_to_refuse(self) -> bool:
        """Whether the message that was refused last is the first one of a flood."""
        return self.refused <= 1

    @property
    def abusive(self) -> bool:
        return self.refused >= _MOST_REFUSED


class RoomTalk:
    """Takes the messages of one connection, one after the other."""

    def __init__(self, desk: RoomDesk, connection: RoomConnection) -> None:
        self._desk = desk
        self._connection = connection
        self._budget = MessageBudget(desk.clock.monotonic_s())

    async def read(self) -> int:
        """Handle messages until the client closes; returns its close code."""
        while True:
            message = await self._connection.socket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            text: str | None = message.get("text")
            size = len(message.get("bytes") or b"") if text is None else len(text.encode("utf-8", "replace"))
            if size > MAX_MESSAGE_BYTES:
                self._connection.close(CloseCode.TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
            else:
                await self._take(text)

    async def _take(self, text: str | None) -> None:
        if not self._budget.takes(self._desk.clock.monotonic_s()):
            self._desk.metrics.room_message(Code.TOO_MANY_REQUESTS)
            if self._budget.abusive:
                self._connection.close(CloseCode.FLOOD, "too many messages")
            elif self._budget.has_begun_to_refuse:
                self._refuse(Code.TOO_MANY_REQUESTS, f"at most {_PER_SECOND:g} messages a second")
            return
        try:
            said = CLIENT_MESSAGE.validate_json(text or "")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            self._refuse(Code.INVALID_REQUEST, f"{where}: {first['msg']}" if where else first["msg"])
            return
        try:
            async with redis_problems():
                await self._do(said)
        except Problem as problem:
            self._refuse(problem.code, problem.detail)
        else:
            self._desk.metrics.room_message("accepted")

    def _refuse(self, code: Code, detail: str) -> None:
        if code is not Code.TOO_MANY_REQUESTS:
            self._desk.metrics.room_message(code)
        self._connection.push(json.dumps({"type": "error", "code": code, "detail": detail}))

    async def _do(self, said: ClientMessage) -> None:
        room, participant = self._connection.now.room, self._connection.now.participant
        participant_id = participant.participant_id
        if isinstance(said, Leave):
            await self._desk.leave(room.room_id, participant_id, LeaveReason.LEFT)
            return
        if not participant.is_admitted:
            raise Problem(Code.NOT_ADMITTED, "a moderator has not let this participant in yet")
        match said:
            case SetHand():
                await self._desk.update(room.room_id, participant_id, hand=said.raised)
            case SetMuted():
                await self._desk.update(room.room_id, participant_id, muted=said.muted)
            case SendReaction():
                event = RoomEvent(type=EventType.REACTION, participant_id=participant_id, reaction=said.reaction)
                await self._desk.say(room, event)
            case SendMessage():
                event = RoomEvent(type=EventType.MESSAGE, participant_id=participant_id, text=said.text)
                await self._desk.say(room, event)
