"""Sessions end when they have no speaker or are too old, uplinks when their token expires, and all learn why."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from integration.gateway.test_gateway_uplink import SECRET, closed, packet, uplink
from redis.asyncio import Redis

from mien_gateway.app import create_app
from mien_gateway.session_limits import Limits, SessionLimits
from mien_shared.bus import keys
from mien_shared.bus.messages import SessionRecord, StopSession
from mien_shared.bus.registry import Registry
from mien_shared.clock import VirtualClock
from mien_shared.http.tokens import LEEWAY_S, SPEAKER_GRANTS, TokenIssuer

pytestmark = pytest.mark.integration


async def ends_with(http: httpx.AsyncClient, session_id: str, detail: str) -> None:
    """Wait until the session has ended, and check the reason that its participants read."""
    async with asyncio.timeout(20):
        while (answer := await http.get(f"/v1/sessions/{session_id}")).status_code == 200:
            await asyncio.sleep(0.05)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:mien:problem:session-not-found")
    assert answer.json()["detail"] == f"the session has ended: {detail}"


async def test_a_session_that_only_a_viewer_keeps_alive_ends(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    session_id, registry = created["session_id"], Registry(generator.redis)
    session = await registry.session(session_id)
    assert session is not None
    assert await registry.keep_alive(session) is not None, "as signaling does for a viewer"
    await generator.redis.set(keys.speaker(session_id), int(time.time()) - 121)
    await ends_with(gateway.http, session_id, "it had no speaker for too long")
    assert StopSession(session_id=session_id) in await generator.is_told(2)
    assert await registry.keep_alive(session) is None, "so signaling ends it for its viewers"


async def test_a_session_that_is_too_old_ends_for_its_speaker_on_any_gateway(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway(max_session_s=60)
    elsewhere = await start_gateway(max_session_s=0, no_speaker_s=0)
    generator = await start_generator()
    session = SessionRecord(session_id="old", avatar_id="someone", created_at_ms=int((time.time() - 58) * 1000))
    await Registry(generator.redis).keep_alive(session)
    token = TokenIssuer(SECRET).issue("old", SPEAKER_GRANTS)
    async with uplink(elsewhere, "old", token) as socket:
        reason = "the session has ended: it reached the longest duration that this deployment allows"
        assert await closed(socket) == (4410, reason)
    await ends_with(gateway.http, "old", "it reached the longest duration that this deployment allows")


async def test_only_the_time_without_a_speaker_counts(
    start_gateway: Any, start_generator: Any, run_app: Any, make_settings: Any
) -> None:
    gateway = await start_gateway(no_speaker_s=0, max_session_s=0)
    generator = await start_generator()
    app = create_app(make_settings(no_speaker_s=0, max_session_s=0))
    await run_app(app)
    registry = Registry(generator.redis)
    # The clock of this gateway is an hour ahead, which must not count: Redis' clock decides.
    limits = SessionLimits(registry, app.state.sessions, Limits(120, 0), VirtualClock(unix_s=time.time() + 3600))
    created = await gateway.create_session()
    session_id = created["session_id"]

    async def lives_after(seconds: int) -> bool:
        """So many seconds pass: Redis' clock cannot be moved, but its entry can."""
        if (since := await generator.redis.get(keys.speaker(session_id))) is not None:
            await generator.redis.set(keys.speaker(session_id), int(since) - seconds)
        await limits.step()
        return await registry.session(session_id) is not None

    assert await lives_after(0)  # the first step notes when it began to wait
    assert await lives_after(119)
    await generator.redis.set(keys.speaker(session_id), int(time.time()))  # an uplink's keep-alive
    assert await lives_after(119)
    await generator.redis.flushall()  # a Redis that came back empty: the time begins anew
    session = SessionRecord(session_id=session_id, avatar_id="someone", created_at_ms=int(time.time() * 1000))
    await registry.keep_alive(session)
    assert await lives_after(119)
    assert await lives_after(119)
    assert not await lives_after(2)


async def test_an_open_uplink_counts_as_a_speaker(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    key = keys.speaker(created["session_id"])
    async with uplink(gateway, created["session_id"], created["token"]):
        await generator.redis.set(
            key, 1_000_000_000_000
        )  # not reached by any clock, so that no limit is reached either
        async with asyncio.timeout(20):
            while int(await generator.redis.get(key)) > time.time():
                await asyncio.sleep(0.1)
        assert 120 < await generator.redis.ttl(key) <= 120 + 300


async def test_a_token_that_expires_closes_its_uplink(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    session_id, tokens = created["session_id"], TokenIssuer(SECRET)
    about_to = tokens.issue(session_id, SPEAKER_GRANTS, 60, int(time.time()) - 59 - LEEWAY_S)
    async with uplink(gateway, session_id, about_to) as socket:
        await socket.send(packet(0))
        assert await closed(socket) == (4401, "the token has expired")
    await gateway.reaches(1, "mien_uplink_closed_total", code="4401")
    async with uplink(gateway, session_id, created["token"]) as socket:
        await socket.send(packet(1))  # the session goes on


async def test_an_operator_s_end_says_so(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    async with uplink(gateway, created["session_id"], created["token"]) as socket:
        assert (await gateway.http.delete(f"/v1/sessions/{created['session_id']}")).status_code == 204
        assert await closed(socket) == (4410, "the session has ended: an operator ended it")
    await ends_with(gateway.http, created["session_id"], "an operator ended it")


async def fill(redis: Redis) -> None:
    """Make the server refuse every write that needs memory."""
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", "1mb")


async def test_a_full_redis_makes_the_gateway_unready_and_a_session_can_still_be_ended(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    created = await gateway.create_session()
    session_id = created["session_id"]
    await fill(generator.redis)
    assert (await gateway.becomes_ready(503))["reasons"] == {"redis_rights": "Redis is full"}
    assert (await gateway.http.get("/livez")).status_code == 200
    answer = await gateway.http.post("/v1/sessions", json={"avatar_id": "someone"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:mien:problem:redis-unavailable")
    assert answer.json()["detail"] == "the session registry is full"
    assert (await gateway.http.delete(f"/v1/sessions/{session_id}")).status_code == 204
    registry = Registry(generator.redis)
    assert await registry.session(session_id) is None
    assert await registry.was_ended(session_id)
    await generator.redis.config_set("maxmemory", "256mb")
    await gateway.becomes_ready()
    await ends_with(gateway.http, session_id, "an operator ended it")
