"""What a client is owed is bounded: one that floods the gateway with pings and reads nothing is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile.ping_flood import attack
from integration.callers import now_ms
from integration.gateway.test_gateway_process import process

from mien_gateway.read_ahead import MAX_OWED_BYTES
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
#: What one read of the socket may add, and what the machine's socket buffers and the allocator may hold besides.
SLACK_MB = 30


async def test_a_flood_of_pings_is_cut_off_and_counted(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id="s", avatar_id="a", created_at_ms=now_ms()))
    async with process(tmp_path, REDIS_URL=redis_server.url) as (_, http):
        url = f"ws://127.0.0.1:{http.base_url.port}/v1/sessions/s/uplink"
        result = await attack(url, TokenIssuer(SECRET).issue("s", SPEAKER_GRANTS), seconds=20)
        assert result.was_cut_off
        assert result.resident_mb_after < result.resident_mb_before + MAX_OWED_BYTES / 1e6 + SLACK_MB
        metrics = (await http.get("/metrics")).text
    assert 'mien_uplink_closed_total{code="4408"} 1.0' in metrics
    assert "mien_uplinks 0.0" in metrics
