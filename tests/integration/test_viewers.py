"""The lists of viewers on a real Redis: written by several signaling services, read and obeyed."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord, ViewerState
from mien_shared.bus.registry import Registry
from mien_shared.bus.viewers import Viewers

pytestmark = pytest.mark.integration


def viewer(
    viewer_id: str, joined_at_ms: int = 0, state: Literal["connecting", "connected"] = "connected"
) -> ViewerState:
    return ViewerState(
        viewer_id=viewer_id, state=state, joined_at_ms=joined_at_ms, sent_bps=800_000, target_bps=1_000_000
    )


@pytest.fixture
def viewers(redis: Redis) -> Viewers:
    return Viewers(redis)


async def test_the_lists_of_all_services_are_read_as_one(viewers: Viewers) -> None:
    b, c, a = viewer("b", 2), viewer("c", 3, "connecting"), viewer("a", 1)
    await viewers.exchange("first", {"one": [b, c], "two": [viewer("x")]})
    await viewers.exchange("second", {"one": [a]})
    assert await viewers.of_session("one") == [a, b, c]
    assert await viewers.count("one") == 2, "one is still connecting"
    assert (await viewers.of_session("nowhere"), await viewers.count("nowhere")) == ([], 0)


async def test_a_list_replaces_the_same_services_earlier_one(viewers: Viewers, redis: Redis) -> None:
    await viewers.exchange("first", {"one": [viewer("a"), viewer("b")]})
    await viewers.exchange("second", {"one": [viewer("c")]})
    await viewers.exchange("first", {"one": [viewer("b")]})
    assert [found.viewer_id for found in await viewers.of_session("one")] == ["b", "c"]
    for service in ("first", "second"):
        await viewers.exchange(service, {"one": []})
    assert await redis.exists(keys.viewer_counts("one"), keys.viewer_lists("one")) == 0


async def test_viewers_of_a_silent_service_vanish_and_so_does_its_list(viewers: Viewers, redis: Redis) -> None:
    await viewers.exchange("killed", {"one": [viewer("a")]}, ttl_ms=200)
    await viewers.exchange("alive", {"one": [viewer("b")]})
    async with asyncio.timeout(20):
        while await viewers.count("one") != 1:
            await asyncio.sleep(0.02)
    assert await viewers.of_session("one") == [viewer("b")]
    await viewers.exchange("alive", {"one": [viewer("b")]})
    assert set(await redis.hgetall(keys.viewer_lists("one"))) == {b"alive"}, "a service that restarts leaves no rest"


async def test_every_service_reads_whom_to_end(viewers: Viewers, redis: Redis) -> None:
    await viewers.end("one", "a")
    await viewers.end("one", "b")
    await viewers.end("two", "c")
    for service in ("first", "second"):
        assert await viewers.exchange(service, {}, ["one", "three"]) == {"one": {"a", "b"}}
    assert 0 < await redis.ttl(keys.viewer_ends("one")) <= keys.VIEWER_ENDS_S


async def test_orders_older_than_a_minute_are_forgotten(viewers: Viewers, redis: Redis) -> None:
    await viewers.end("one", "old")
    await redis.zincrby(keys.viewer_ends("one"), -1000 * keys.VIEWER_ENDS_S, "old")
    await viewers.end("one", "new")
    assert await viewers.exchange("first", {}, ["one"]) == {"one": {"new"}}


async def test_a_full_redis_takes_orders_and_lists(viewers: Viewers, redis: Redis) -> None:
    await redis.config_set("maxmemory", "1")
    await viewers.end("one", "a")
    assert await viewers.exchange("first", {"one": [viewer("a")]}, ["one"]) == {"one": {"a"}}
    assert await viewers.of_session("one") == [viewer("a")]
    await redis.config_set("maxmemory", "0")


async def test_an_ended_session_gets_no_list_again(viewers: Viewers, redis: Redis) -> None:
    registry = Registry(redis)
    await registry.keep_alive(SessionRecord(session_id="one", avatar_id="a", created_at_ms=0))
    await viewers.exchange("first", {"one": [viewer("a")]})
    await viewers.end("one", "a")
    await registry.end_session("one")
    await viewers.exchange("first", {"one": [viewer("a")]})
    assert await redis.keys("*one*viewer*") == []


async def test_a_list_that_cannot_be_read_is_left_out(
    viewers: Viewers, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await viewers.exchange("newer", {"one": [viewer("a secret id")]})
    await redis.hset(keys.viewer_lists("one"), "newer", b'[{"viewer_id": "a secret id"}]')
    await viewers.exchange("ours", {"one": [viewer("b")]})
    assert await viewers.of_session("one") == [viewer("b")]
    (record,) = caplog.records
    assert record.getMessage() == "unreadable list of viewers ignored"
    assert "a secret id" not in str(vars(record))


async def test_a_redis_that_comes_back_empty_is_filled_by_the_next_list(
    viewers: Viewers, redis_server: EmbeddedRedis
) -> None:
    await viewers.exchange("first", {"one": [viewer("a")]})
    redis_server.stop()
    redis_server.start()
    assert await viewers.of_session("one") == []
    await viewers.exchange("first", {"one": [viewer("a")]})
    assert await viewers.of_session("one") == [viewer("a")]
