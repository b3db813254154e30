"""Damaged offers and candidates through the whole of signaling: a refusal that has a name, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from fuzz import sdp, trickle
from fuzz.harness import damaged

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

OFFERS = 150
EXPECTED = {201, 204, 400, 404, 413, 422}


async def test_no_offer_and_no_candidate_breaks_anything(
    redis_server: EmbeddedRedis, run_app: Callable[[FastAPI], Awaitable[str]]
) -> None:
    unlimited = 10**9
    settings = SignalingSettings.model_validate(
        {
            "redis_url": redis_server.url,
            "token_secret": "a secret of thirty-two bytes or more",
            "demo_open": True,
            "joins_per_minute": unlimited,
            "session_joins_per_minute": unlimited,
            "updates_per_minute": unlimited,
            "connect_timeout_s": 0.5,
            "linger_s": 0.1,
        }
    )
    chance = random.Random(11)
    answers: Counter[int] = Counter()
    async with open_redis(redis_server.url) as redis:
        registry = Registry(redis)
        await registry.keep_alive(SessionRecord(session_id="live", avatar_id="nobody", created_at_ms=0))
        await registry.hold("generator", "live", ttl_ms=600_000)
        url = await run_app(create_app(settings))
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            for _ in range(OFFERS):
                offer = damaged(chance, sdp.TARGET)
                answer = await http.post("/v1/whep/live", content=offer, headers={"Content-Type": "application/sdp"})
                answers[answer.status_code] += 1
                assert answer.status_code in EXPECTED, (answer.text, offer)
                if answer.status_code == 201:
                    fragment = damaged(chance, trickle.TARGET)
                    kind = {"Content-Type": "application/trickle-ice-sdpfrag"}
                    patched = await http.patch(answer.headers["location"], content=fragment, headers=kind)
                    assert patched.status_code in EXPECTED, (patched.text, fragment)
            async with asyncio.timeout(30):
                while 'mien_viewers{state="connecting"} 0.0' not in (text := (await http.get("/metrics")).text):
                    await asyncio.sleep(0.1)
                while "mien_watched_sessions 0.0" not in (text := (await http.get("/metrics")).text):
                    await asyncio.sleep(0.1)
            assert 'mien_viewers{state="connected"} 0.0' in text
    assert answers[201] and answers[400] and answers[422], "the damage was of every kind"
