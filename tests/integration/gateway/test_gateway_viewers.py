"""Operators list and end viewers over HTTP. tests/integration/test_signaling_viewers.py has signaling's side."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from integration.callers import now_ms
from redis.asyncio import Redis

from mien_gateway import audit
from mien_shared.bus.messages import SessionRecord, ViewerState
from mien_shared.bus.registry import Registry
from mien_shared.bus.viewers import Viewers

pytestmark = pytest.mark.integration

PATH = "/v1/sessions/one/viewers"
ALICE = ViewerState(
    viewer_id="alice",
    state="connected",
    joined_at_ms=1,
    sent_bps=800_000,
    target_bps=900_000,
    loss_ratio=0.01,
    rtt_ms=40.5,
)
BOB = ViewerState(viewer_id="bob", state="connecting", joined_at_ms=2, sent_bps=0, target_bps=1_200_000)


@pytest.fixture
async def viewers(redis: Redis) -> Viewers:
    """Two viewers of one session, each on its own signaling service."""
    await Registry(redis).keep_alive(SessionRecord(session_id="one", avatar_id="someone", created_at_ms=now_ms()))
    viewers = Viewers(redis)
    await viewers.exchange("first", {"one": [BOB]})
    await viewers.exchange("second", {"one": [ALICE]})
    return viewers


async def problem(gateway: Any, method: str, path: str) -> tuple[int, str, str]:
    answer = await gateway.http.request(method, path)
    body = answer.json()
    return answer.status_code, body["type"].removeprefix("urn:mien:problem:"), body["detail"]


async def test_the_list_has_the_viewers_of_every_service(start_gateway: Any, viewers: Viewers) -> None:
    gateway = await start_gateway()
    answer = await gateway.http.get(PATH)
    assert answer.status_code == 200
    assert answer.json() == {
        "viewers": [
            {
                "viewer_id": "alice",
                "state": "connected",
                "joined_at_ms": 1,
                "sent_bps": 800_000,
                "target_bps": 900_000,
                "loss_ratio": 0.01,
                "rtt_ms": 40.5,
            },
            {
                "viewer_id": "bob",
                "state": "connecting",
                "joined_at_ms": 2,
                "sent_bps": 0,
                "target_bps": 1_200_000,
                "loss_ratio": None,
                "rtt_ms": None,
            },
        ]
    }


async def test_an_end_is_told_to_signaling_and_audited(
    start_gateway: Any, viewers: Viewers, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    caplog.set_level(logging.INFO)
    assert (await gateway.http.delete(f"{PATH}/alice")).status_code == 204
    assert await viewers.exchange("second", {}, ["one"]) == {"one": {"alice"}}
    assert (await gateway.http.delete(f"{PATH}/alice")).status_code == 204, "signaling has not ended it yet"
    await viewers.exchange("second", {"one": []})
    expected = (404, "viewer-not-found", "the session has no such viewer, or the viewer has left")
    assert await problem(gateway, "DELETE", f"{PATH}/alice") == expected
    lines = [one for one in caplog.records if one.name == "mien.audit"]
    assert [(line.getMessage(), vars(line)["viewer"]) for line in lines] == [
        ("viewer ended", audit.digest("alice"))
    ] * 2


async def test_unknown_sessions_and_viewers_are_told_apart(start_gateway: Any, viewers: Viewers, redis: Redis) -> None:
    gateway = await start_gateway()
    unknown = (404, "session-not-found", "there is no session with this id")
    assert await problem(gateway, "GET", "/v1/sessions/two/viewers") == unknown
    assert await problem(gateway, "DELETE", "/v1/sessions/two/viewers/alice") == unknown
    assert (await problem(gateway, "DELETE", f"{PATH}/carol"))[:2] == (404, "viewer-not-found")
    assert await viewers.exchange("first", {}, ["one", "two"]) == {}, "only viewers that are listed are written"
    assert (await gateway.http.delete("/v1/sessions/one")).status_code == 204
    ended = (404, "session-not-found", "the session has ended: an operator ended it")
    assert await problem(gateway, "GET", PATH) == ended
    assert await problem(gateway, "DELETE", f"{PATH}/alice") == ended


async def test_without_redis_the_answer_is_503(start_gateway: Any, viewers: Viewers, redis_server: Any) -> None:
    gateway = await start_gateway()
    redis_server.stop()
    await gateway.becomes_ready(503)
    for method, path in (("GET", PATH), ("DELETE", f"{PATH}/alice")):
        answer = await gateway.http.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:mien:problem:redis-unavailable")
        assert "retry-after" in answer.headers


async def test_a_full_redis_lists_viewers_and_takes_orders(start_gateway: Any, viewers: Viewers, redis: Redis) -> None:
    gateway = await start_gateway()
    await redis.config_set("maxmemory", "1")
    assert len((await gateway.http.get(PATH)).json()["viewers"]) == 2
    assert (await gateway.http.delete(f"{PATH}/alice")).status_code == 204
    await redis.config_set("maxmemory", "0")
    assert await viewers.exchange("second", {}, ["one"]) == {"one": {"alice"}}
