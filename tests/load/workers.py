"""Load clients in child processes: the parent sends an order, the child answers with a report, one JSON line each."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

_TESTS = Path(__file__).parents[1]
_LINE_BYTES = 1 << 26  # a report contains every measured latency
_END_TIMEOUT_S = 20.0

Order = TypeVar("Order", bound=BaseModel)
Report = TypeVar("Report", bound=BaseModel)


class WorkerLost(RuntimeError):
    """A child ended instead of answering."""


class Worker:
    """The parent's end of one child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, order: BaseModel, report: type[Report]) -> Report:
        """Send an order and wait for its report. Raises WorkerLost."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(order.model_dump_json().encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise WorkerLost(f"a load client ended with status {await self._process.wait()}")
        return report.model_validate_json(line)

    async def aclose(self) -> None:
        """Ask the child to clean up and end. Kill it after twenty seconds."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def worker(module: str, *arguments: str) -> AsyncIterator[Worker]:
    """Run `python -m MODULE` as a child process inside the context."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=pipe,
        stdout=pipe,
        limit=_LINE_BYTES,
        env=os.environ | {"PYTHONPATH": str(_TESTS)},
    )
    started = Worker(process)
    try:
        yield started
    finally:
        await started.aclose()


async def serve(order: type[Order], handle: Callable[[Order], Awaitable[BaseModel]]) -> None:
    """The child's loop: answer every order. Returns when the parent closes the pipe."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await handle(order.model_validate_json(line))
        sys.stdout.write(answer.model_dump_json() + "\n")
        sys.stdout.flush()
