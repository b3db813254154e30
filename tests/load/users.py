"""A process of users. Each has a session, an uplink at 30 packets a second, and REST calls with think time.

Every user has one TCP connection for the uplink and one for the calls. The websockets library does the uplink's
handshake and its control frames. This module frames the motion itself: the library takes ten times as long per packet,
and a thousand senders must fit beside the system that they measure. A clock decides when packets are sent, not the
system's answers. So if the system is slow, packets arrive late, and this delay is measured.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Literal, TypeVar

from load.workers import serve
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.protocol import State

from mien_client.api import MienClient, MienError, Session, Unreachable, authorization
from mien_client.demo import BUNDLED_AVATAR
from mien_client.speaking import DEMO_TRACK, capture_clock_ms
from mien_shared.wire.motion_v1 import PACKET_BYTES

Response = TypeVar("Response")

PACKETS_PER_S = 30
_OPENING_AT_ONCE = 8
#: Users do not all send at the same moment: a frame's interval has this many sending moments.
_MOMENTS = 16

# A masked binary frame of 128 bytes (RFC 6455, section 5.2). The mask is zero, so the payload is not changed.
_FRAME_HEADER = bytes([0x82, 0x80 | 126]) + struct.pack("!H", PACKET_BYTES) + bytes(4)
_SEQUENCE_AND_CAPTURE = struct.Struct("<HI")
_SEQUENCE_AT = 2


class UsersOrder(BaseModel):
    """raise: add users until there are `users`. begin: reset the counters. report: return the counters."""

    kind: Literal["raise", "begin", "report"]
    users: int = 0
    think_s: float = 1.0


class UsersReport(BaseModel):
    """Counters since `begin`. held_back: packets that were not sent because the socket or this process was too slow.

    responses_ms: response times by call.
    """

    users: int
    sent: int
    held_back: int
    responses_ms: dict[str, list[float]]
    errors: dict[str, int]


class User:
    """One user's session and connections."""

    def __init__(self, mien: MienClient, session: Session, socket: ClientConnection, track: bytes) -> None:
        self.mien = mien
        self.session = session
        self._socket = socket
        self._track = track
        self._sequence = random.randrange(0x10000)

    @property
    def is_connected(self) -> bool:
        return self._socket.state is State.OPEN

    def send(self, number: int) -> bool:
        """Send the track's packet of that number, captured now. False if the socket still has data to send."""
        transport = self._socket.transport
        if transport.get_write_buffer_size():
            return False
        at = number * PACKET_BYTES % len(self._track)
        packet = bytearray(self._track[at : at + PACKET_BYTES])
        self._sequence = (self._sequence + 1) & 0xFFFF
        _SEQUENCE_AND_CAPTURE.pack_into(packet, _SEQUENCE_AT, self._sequence, capture_clock_ms())
        transport.write(_FRAME_HEADER + packet)
        return True


class Users:
    """All users of this process."""

    def __init__(self, gateway_url: str, contexts: AsyncExitStack) -> None:
        self._gateway_url = gateway_url
        self._contexts = contexts
        self._track = DEMO_TRACK.read_bytes()
        self._users: list[User] = []
        self._calling: list[asyncio.Task[None]] = []
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._begin()

    def _begin(self) -> None:
        self._counts: Counter[str] = Counter(sent=0, held_back=0)
        self._responses_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._errors: Counter[str] = Counter()

    async def handle(self, order: UsersOrder) -> UsersReport:
        if order.kind == "raise":
            await asyncio.gather(*(self._add(order.think_s) for _ in range(order.users - len(self._users))))
        elif order.kind == "begin":
            self._begin()
        errors = self._errors.copy()
        errors["uplink closed"] = sum(not user.is_connected for user in self._users)
        return UsersReport(
            users=len(self._users), responses_ms=dict(self._responses_ms), errors=dict(+errors), **self._counts
        )

    async def _add(self, think_s: float) -> None:
        async with self._opening:
            mien = await self._contexts.enter_async_context(MienClient(self._gateway_url))
            session = await self._timed("create", mien.create_session(BUNDLED_AVATAR))
            if session is None:
                return
            headers = authorization(session.token)
            opening = connect(session.uplink_url, additional_headers=headers, compression=None, proxy=None)
            try:
                socket = await self._contexts.enter_async_context(opening)
            except (OSError, TimeoutError, WebSocketException) as error:
                self._errors[f"uplink not opened ({type(error).__name__})"] += 1
                return
            user = User(mien, session, socket, self._track)
            self._users.append(user)
            self._calling.append(asyncio.create_task(self._call_around(user, think_s)))
            self._contexts.callback(self._calling[-1].cancel)

    async def send_all(self) -> None:
        """Send every user's packets by the clock, until cancelled. Packets that would be a frame late are dropped."""
        moment_s = 1 / (_MOMENTS * PACKETS_PER_S)
        started_s = time.monotonic()
        step = 0
        while True:
            step += 1
            behind_s = time.monotonic() - started_s - step * moment_s
            if behind_s > _MOMENTS * moment_s:
                missed = int(behind_s / moment_s)
                self._counts["held_back"] += missed * len(self._users) // _MOMENTS
                step += missed
            await asyncio.sleep(max(0.0, -behind_s))
            number, moment = divmod(step, _MOMENTS)
            for user in self._users[moment::_MOMENTS]:
                self._counts["sent" if user.is_connected and user.send(number) else "held_back"] += 1

    async def _call_around(self, user: User, think_s: float) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * think_s)
            await self._timed("session", user.mien.session(user.session.session_id, user.session.token))
            await asyncio.sleep(random.uniform(0.5, 1.5) * think_s)
            await self._timed("avatar", user.mien.avatar(BUNDLED_AVATAR))

    async def _timed(self, name: str, call: Awaitable[Response]) -> Response | None:
        begun_s = time.monotonic()
        try:
            answer = await call
        except MienError as error:
            self._errors[f"{name}: {error.status} {error.code}"] += 1
            return None
        except Unreachable:
            self._errors[f"{name}: no answer"] += 1
            return None
        self._responses_ms[name].append((time.monotonic() - begun_s) * 1000)
        return answer


async def main(gateway_url: str) -> None:
    async with AsyncExitStack() as contexts:
        users = Users(gateway_url, contexts)
        sending = asyncio.create_task(users.send_all())
        contexts.callback(sending.cancel)
        await serve(UsersOrder, users.handle)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
