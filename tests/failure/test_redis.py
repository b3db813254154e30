"""Redis is stopped, hangs, or is restarted without its data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from e2e.system import System
from failure.eye import LEAST_FPS, fps, longest_freeze_s, watching
from failure.stacks import Note, Run, all_ready, bundled_face, full_only, setting
from outages import hanging, stopped

from mien_client.api import MienClient, MienError
from mien_client.demo import BUNDLED_AVATAR
from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.failure


@pytest.mark.parametrize("outage", [stopped, pytest.param(hanging, marks=full_only)])
async def test_redis_away(
    run_system: Run, note: Note, outage: Callable[[EmbeddedRedis], AbstractAsyncContextManager[None]]
) -> None:
    away_s = setting("MIEN_FAILURE_REDIS_S", 10)
    async with run_system() as system, system.call() as call, MienClient(system.stack.url) as mien:
        async with watching(call.session, await bundled_face(system)) as eye:
            pids = {name: system.stack.pid(name) for name in system.stack.services}
            gone_s = time.monotonic()
            async with outage(system.redis):
                await asyncio.sleep(min(6.0, away_s / 2))
                with pytest.raises(MienError) as refused:
                    await mien.create_session(BUNDLED_AVATAR)
                assert (refused.value.status, refused.value.code) == (503, "redis-unavailable")
                assert refused.value.retry_after_s is not None
                assert {await system.readiness(name) for name in pids} == {503}
                await asyncio.sleep(max(0.0, gone_s + away_s - time.monotonic()))
            back_s = time.monotonic()
            moves_s = await eye.wait_for_speaker(back_s, within_s=20)
            await all_ready(system, within_s=10)
            await asyncio.sleep(2)
            assert eye.is_connected
            assert system.stack.ended() == {}
            assert {name: system.stack.pid(name) for name in pids} == pids
            after = eye.since(time.monotonic() - 1.5)
            assert fps(after) > LEAST_FPS
            assert all(sight.is_speaker for sight in after)
        other = await mien.create_session(BUNDLED_AVATAR)
        await mien.end_session(other.session_id, other.token)
    assert moves_s - back_s <= 5.0
    note(
        f"Redis {outage.__name__} for {away_s:g} s",
        "a frozen picture; no process and no connection ended, new sessions got 503 with Retry-After; "
        "then the speaker moves again",
        f"{moves_s - back_s:.2f} s from its return until the speaker moves (limit 5 s)",
    )


async def test_redis_restarted_empty(run_system: Run, note: Note) -> None:
    async with run_system() as system, system.call() as call, MienClient(system.stack.url) as mien:
        session_id, token = call.session.session_id, call.session.token
        async with (
            watching(call.session, await bundled_face(system)) as eye,
            open_redis(system.redis.url) as redis,
        ):
            before = await registry_keys(system)
            generator = (await mien.session(session_id, token)).generator
            async with stopped(system.redis):
                pass
            back_s = time.monotonic()
            moves_s = await eye.wait_for_speaker(back_s, within_s=20)
            async with asyncio.timeout(10):
                while not await is_live(mien, session_id, token):
                    await asyncio.sleep(0.05)
            known_s = time.monotonic()
            async with asyncio.timeout(10):
                while await registry_keys(system) != before:
                    await asyncio.sleep(0.1)
            assert (await mien.session(session_id, token)).generator == generator, "the same generator still holds it"
            assert await redis.zscore(keys.slots(str(generator)), session_id) is not None
            await asyncio.sleep(1)
            assert longest_freeze_s(eye.since(moves_s), time.monotonic()) < 1.0
            assert eye.is_connected
            async with watching(call.session, await bundled_face(system)):
                pass  # another viewer can join
    note(
        "Redis restarted with nothing in it",
        "a short freeze; the same generator continues, and the gateway and signaling register the session again",
        f"{moves_s - back_s:.2f} s until the speaker moves, {known_s - back_s:.1f} s until the session is known again",
    )


async def registry_keys(system: System) -> set[str]:
    """The keys of the registry, without streams, short-lived keys, and the speaker's, which comes later."""
    async with open_redis(system.redis.url) as redis:
        return {
            name.decode()
            for name in await redis.keys("*")
            if not name.endswith(
                (b":inbox", b":control", b":video", b":stats", b":viewer-counts", b":viewer-lists", b":speaker")
            )
        }


async def is_live(mien: MienClient, session_id: str, token: str) -> bool:
    try:
        return (await mien.session(session_id, token)).state == "live"
    except MienError as error:
        if error.status in {404, 503}:
            return False
        raise
