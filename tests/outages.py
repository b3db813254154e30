"""Outages of a real Redis: it comes back empty, it hangs and goes on with its data, or it is far away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from mien_shared.bus.embedded_redis import EmbeddedRedis


@asynccontextmanager
async def stopped(redis: EmbeddedRedis) -> AsyncIterator[None]:
    """Inside the context Redis is stopped. Afterwards it runs again, empty."""
    await asyncio.to_thread(redis.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(redis.start)


@asynccontextmanager
async def hanging(redis: EmbeddedRedis) -> AsyncIterator[None]:
    """Inside the context Redis accepts connections but does not answer. Afterwards it continues with its data."""
    pid = server_pid(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def server_pid(redis: EmbeddedRedis) -> int:
    """The process id of the redis-server, found by its folder in its command line."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "-server" in command.split("\0")[0] and str(redis.folder) in command:
            return int(line.parent.name)
    raise LookupError("redis-server is not running")


class DelayingProxy:
    """A TCP port behind which a Redis answers late. Each direction takes `delay_s`. It counts round trips.

    round_trips: how often a client sent something after it had its answer, on all connections together.
    """

    def __init__(self, redis: EmbeddedRedis, delay_s: float) -> None:
        self._socket = unquote(redis.url.removeprefix("unix://"))
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.round_trips = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        asked = asyncio.Event()
        for work in (self._carry(reader, server_writer, asked, True), self._carry(server_reader, writer, asked, False)):
            task = asyncio.create_task(work)
            self._tasks.add(task)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event, is_request: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65_536):
            if is_request and not asked.is_set():
                asked.set()
                self.round_trips += 1
            elif not is_request:
                asked.clear()
            loop.call_later(self._delay_s, writer.write, data)
        loop.call_later(self._delay_s, writer.close)
