"""The uplink: sends motion packets over a WebSocket and reconnects by itself. The newest packet wins."""

from __future__ import annotations

import asyncio
import logging
import random
from http import HTTPStatus
from operator import attrgetter
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from mien_client.api import Unreachable, authorization
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.newest import NewestWins

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
#: A service that has just created the session answers within this time, or its uplink's address is wrong.
_CONNECT_TIMEOUT_S = 20.0
#: Close codes after which reconnecting is useless: policy violation, replaced by another uplink, session ended.
_FINAL_CODES = {1008, 4401, 4409, 4410}


class UplinkClosed(Exception):
    """The service refused or closed this uplink for good. The text gives the reason."""


class Uplink:
    """Sends the motion packets of one session. `push` never waits: of the packets that wait, the newest wins.

    Counters: `sent` and `superseded` packets, `sent_bytes` of payload, `reconnects`.
    """

    def __init__(self, url: str, token: str, connect_timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
        self._url = url
        self._token = token
        self._connect_timeout_s = connect_timeout_s
        self._failure = ""  # why the last attempt to connect failed
        self._waiting: NewestWins[MotionPacket] = NewestWins(attrgetter("may_be_dropped"))
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.sent_bytes = 0
        self.superseded = 0
        self.reconnects = 0

    def push(self, packet: MotionPacket) -> None:
        """Send this packet as soon as the socket is free. Raises UplinkClosed if the service has closed the uplink."""
        if self._task is not None and self._task.done():
            self._task.result()
        self.superseded += self._waiting.push(packet)
        self._changed.set()

    async def __aenter__(self) -> Self:
        """Connect. Raises UplinkClosed if the service refuses, Unreachable if it does not answer in time.

        Later, after a connection breaks, it is made again however long that takes.
        """
        self._task = asyncio.create_task(self._run(), name="uplink")
        connected = asyncio.create_task(self._connected.wait())
        try:
            await asyncio.wait(
                {self._task, connected}, timeout=self._connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not connected.done():
                if self._task.done():
                    self._task.result()  # raises
                raise Unreachable(f"{self._url} does not answer: {self._failure or 'timeout'}")
        except BaseException:
            connected.cancel()
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                async with connect(
                    self._url, additional_headers=authorization(self._token), compression=None, max_queue=4, proxy=None
                ) as socket:
                    self._connected.set()
                    wait_s = _FIRST_WAIT_S
                    await self._send_all(socket)
            except InvalidStatus as error:
                if error.response.status_code < 500 and error.response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise UplinkClosed(
                        f"the service refused the uplink with HTTP status {error.response.status_code}"
                    ) from error
                self._failure = str(error)
            except ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code in _FINAL_CODES:
                    reason = error.rcvd.reason or error.rcvd.code
                    raise UplinkClosed(f"the service closed the uplink: {reason}") from error
            except InvalidURI as error:
                raise UplinkClosed(f"the service named an address of the uplink that is none: {error}") from error
            except (OSError, TimeoutError, InvalidHandshake) as error:
                # A service or a proxy that is restarting may answer with anything, or break off.
                self._failure = str(error) or type(error).__name__
            self.reconnects += 1
            logger.info("uplink not connected, trying again", extra={"wait_s": wait_s})
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _send_all(self, socket: ClientConnection) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for packet in self._waiting.take():
                data = packet.pack()
                await socket.send(data)
                self.sent += 1
                self.sent_bytes += len(data)
