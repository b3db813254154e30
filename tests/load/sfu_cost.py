"""What a viewer costs in signaling's fan-out, and what it costs in Janus: `PYTHONPATH=tests python -m load.sfu_cost`.

Both serve the same session to the same kind of viewer, one after the other, twice. Only the ratio means something: the
viewers and the picture's encoder run on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from fastapi import FastAPI
from integration.conftest import _running
from integration.janus import Subscriber, why_impossible
from integration.sfu_world import SfuWorld, sfu_world
from integration.test_signaling_media import SESSION
from integration.voice_peers import Listener

from mien_shared.bus.embedded_redis import EmbeddedRedis

_SETTLE_S = 2.0
_START_S = 60.0


def cpu_s(pid: int) -> float:
    """The time that a process has used, in user mode and in the kernel (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ms_per_s(pid: int, seconds: float) -> float:
    await asyncio.sleep(_SETTLE_S)
    used_s, began_s = cpu_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return 1000 * (cpu_s(pid) - used_s) / (time.monotonic() - began_s)


async def of_viewers(pid: int, make: Callable[[], Listener | Subscriber], viewers: int, seconds: float) -> float:
    """CPU of a process for each of so many viewers, in ms a second."""
    idle = await ms_per_s(pid, seconds)
    async with AsyncExitStack() as stack:
        for _ in range(viewers):
            viewer = make()
            stack.push_async_callback(viewer.close)
            await viewer.join()
        return (await ms_per_s(pid, seconds) - idle) / viewers


async def compare(world: SfuWorld, client: httpx.AsyncClient, pid: int, viewers: int, seconds: float) -> None:
    """Print one comparison. pid: of signaling."""
    ours = await of_viewers(pid, lambda: Listener(client, SESSION.session_id, voice=False), viewers, seconds)
    await world.order()
    await world.becomes("connected")
    theirs = await of_viewers(world.janus.pid, lambda: Subscriber(world.janus, SESSION.session_id), viewers, seconds)
    await world.order(wanted=False)
    await world.becomes(None)
    print(f"{viewers} viewers, ms of CPU a second each: signaling {ours:.2f}, Janus {theirs:.2f}: {theirs / ours:.2f}")


async def run(viewers: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())

        def run_app(app: FastAPI) -> Awaitable[str]:
            return stack.enter_async_context(_running(app))

        world = await stack.enter_async_context(sfu_world(server, run_app))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = await world.signaling_process(MIEN_PORT=str(port), MIEN_DEMO_OPEN="true", MIEN_LOG_LEVEL="WARNING")
        url = f"http://127.0.0.1:{port}"
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        async with asyncio.timeout(_START_S):
            while not await _is_ready(client):
                await asyncio.sleep(0.1)
        for _ in range(2):
            await compare(world, client, process.pid, viewers, seconds)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--viewers", type=int, default=15)
    arguments.add_argument("--seconds", type=float, default=8.0)
    options = arguments.parse_args()
    if reason := why_impossible():
        raise SystemExit(reason)
    asyncio.run(run(options.viewers, options.seconds))


if __name__ == "__main__":
    main()
