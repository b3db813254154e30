"""A generator is killed, is drained beside another one, or is drained without another one to take its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest
from failure.eye import LEAST_FPS, fps, longest_freeze_s, longest_gap_s, watching
from failure.stacks import Note, Run, bundled_face, holder_of

from mien_client.api import MienClient, MienError
from mien_client.demo import BUNDLED_AVATAR
from mien_shared.bus.connection import open_redis
from mien_shared.bus.registry import Registry

pytestmark = pytest.mark.failure


async def test_a_generator_killed_in_mid_call(run_system: Run, note: Note) -> None:
    async with run_system(generators=2) as system, system.call() as call:
        box = await bundled_face(system)
        async with watching(call.session, box) as eye:
            holder = await holder_of(system, call.session)
            await asyncio.sleep(1.5)  # until the first heartbeat, the longer reservation holds the session
            killed_s = time.monotonic()
            assert await system.stack.kill(holder) == -signal.SIGKILL
            # The jitter buffer releases the killed generator's last picture with its successor's first one, an IDR.
            async with asyncio.timeout(20):
                while not (keys := [sight.at_s for sight in eye.since(killed_s) if sight.is_key]):
                    await asyncio.sleep(0.02)
            moves_s = keys[0]
            await asyncio.sleep(2)
            after = eye.since(moves_s)
            assert eye.is_connected
        assert moves_s - killed_s <= 3.0
        assert longest_gap_s(after) < 0.5
        assert longest_freeze_s(after, after[-1].at_s) < 0.5, "the speaker keeps moving"
        assert await system.metric("signaling", "mien_viewers_gone_total", reason="failed") == 0
    note(
        "a generator killed (`-9`) in mid-call, another alive",
        "the picture freezes for a moment, then the speaker moves again, on the same peer connection",
        f"{moves_s - killed_s:.2f} s until the speaker moves (limit 3 s)",
    )


async def test_a_generator_drained_beside_another(run_system: Run, note: Note) -> None:
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(run_system(generators=2, env_of={"generator": {"MIEN_DRAIN_S": "15"}}))
        await system.stack.kill("generator-2")
        await asyncio.sleep(2)  # its heartbeat lapses, so that both calls go to the other generator
        calls = [await stack.enter_async_context(system.call()) for _ in range(2)]
        await system.stack.start("generator-2")
        box = await bundled_face(system)
        eyes = [await stack.enter_async_context(watching(call.session, box)) for call in calls]
        await asyncio.sleep(1)
        before_s = time.monotonic()
        status = await system.stack.kill("generator", signal.SIGTERM)
        took_s = time.monotonic() - before_s
        await asyncio.sleep(2)
        gap_s = max(longest_gap_s(eye.since(before_s - 0.5)) for eye in eyes)
        assert status == 0
        assert await system.metric("generator-2", "mien_generator_sessions") == 2
        assert all(eye.is_connected for eye in eyes)
        assert gap_s <= 0.5
        for eye in eyes:
            assert fps(eye.since(time.monotonic() - 1.5)) > LEAST_FPS
            assert all(sight.is_speaker for sight in eye.since(time.monotonic() - 1.0))
    note(
        "one of two generators drained (SIGTERM) with two calls",
        "no break; both sessions moved, the process ended with status 0",
        f"longest gap between two pictures {gap_s * 1000:.0f} ms (limit 500 ms); drained in {took_s:.1f} s",
    )


async def test_a_drain_that_nobody_relieves_ends_at_its_deadline(run_system: Run, note: Note) -> None:
    deadline_s = 3.0
    env_of = {"generator": {"MIEN_DRAIN_S": f"{deadline_s:g}"}}
    async with (
        run_system(env_of=env_of) as system,
        system.call() as call,
        MienClient(system.stack.url) as mien,
        open_redis(system.redis.url) as redis,
    ):
        registry = Registry(redis)
        async with watching(call.session, await bundled_face(system)) as eye:
            before_s = time.monotonic()
            ending = asyncio.create_task(system.stack.kill("generator", signal.SIGTERM))
            async with asyncio.timeout(deadline_s):
                while not (await registry.generators())[0].draining:
                    await asyncio.sleep(0.02)
                with pytest.raises(MienError, match="503 no-generator"):
                    await mien.create_session(BUNDLED_AVATAR)
            assert await ending == 0
            took_s = time.monotonic() - before_s
            sights = eye.since(before_s)
            assert deadline_s - 0.5 <= took_s <= deadline_s + 2.5
            assert sights[-1].at_s - before_s > deadline_s - 0.5, "pictures until the end"
            assert longest_gap_s(sights) < 0.5
            assert eye.is_connected
            started_s = time.monotonic()
            await system.stack.start("generator")
            moves_s = await eye.wait_for_speaker(started_s, within_s=20)
    note(
        "the only generator drained, deadline 3 s",
        "pictures until the deadline, then a frozen picture; the same peer connection moves again once a generator is "
        "started",
        f"the process ended after {took_s:.1f} s with status 0; "
        f"{moves_s - started_s:.1f} s from the start of the next one",
    )
