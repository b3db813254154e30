"""Clients that connect and abort leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from e2e.system import System
from failure.churn import CHURN_ENV, Churn, facts, held, lasting_keys
from failure.eye import fps, watching
from failure.stacks import Note, Run, bundled_face, setting

pytestmark = pytest.mark.failure

#: Tasks or descriptors that may be open at the moment of counting. A leak per cycle of one kind would be more than 11.
_CHANCE = 2
#: Most connections to Redis. The pool keeps one for each call that there ever was at the same time: the service's own
#: loops, and a few for each of the six clients. A leak would be a hundred of one kind in `make failure`.
_POOL = 48
#: The event loop's thread pool grows with use, up to the number of cores plus four.
_THREADS = (os.cpu_count() or 1) + 4


async def settled(system: System, wanted: tuple[dict[str, float], set[str]]) -> None:
    """Wait until viewers, uplinks, sessions, slots and Redis keys are the same as before."""
    deadline_s = time.monotonic() + 30
    while True:
        found = await facts(system), await lasting_keys(system)
        if found == wanted:
            await asyncio.sleep(2)  # let the last connections close
            return
        if time.monotonic() > deadline_s:
            pytest.fail(f"left behind: {found[0]} instead of {wanted[0]}; keys {sorted(found[1] ^ wanted[1])}")
        await asyncio.sleep(0.2)


async def test_nothing_is_left_of_connect_and_abort(run_system: Run, note: Note) -> None:
    cycles = round(setting("MIEN_FAILURE_CYCLES", 100))
    async with (
        run_system(generator_env=CHURN_ENV) as system,
        system.call() as call,
        Churn(system) as churn,
        watching(call.session, await bundled_face(system)) as eye,
    ):
        wanted = await facts(system), await lasting_keys(system)
        await churn.run(4 * len(churn.kinds))  # warm-up: opens the pools and threads that stay
        await settled(system, wanted)
        before = await held(system)
        began_s = time.monotonic()
        await churn.run(cycles)
        took_s = time.monotonic() - began_s
        await settled(system, wanted)
        after = await held(system)
        for name, then in before.items():
            now = after[name]
            print(name, then, now)
            assert now.tasks <= then.tasks + _CHANCE, name
            assert now.threads <= then.threads + _THREADS, name
            assert now.fds <= then.fds + _CHANCE, name
            assert now.pooled <= _POOL, name
        assert not churn.refused
        for name in before:
            log = (system.stack.folder / f"{name}.log").read_text()
            errors = [line for line in log.splitlines() if '"level": "ERROR"' in line]
            assert errors == [], f"{name} logs an error of its own when a client aborts"
        assert system.stack.ended() == {}
        assert eye.is_connected
        seen = eye.since(began_s, began_s + took_s)
    grown = {name: after[name].fds - before[name].fds for name in before}
    note(
        f"{cycles} connect-and-abort cycles of nine kinds",
        f"the call continues at {fps(seen):.0f} pictures a second; no task, thread, slot or Redis key is left, "
        f"file descriptors {', '.join(f'{name} {count:+d}' for name, count in grown.items())}",
        f"{took_s:.0f} s",
    )
