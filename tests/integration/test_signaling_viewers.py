"""Viewers that operators see and end, on two signaling services with real Redis and real WebRTC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest
from integration.test_signaling_media import (
    SESSION,
    Publisher,
    RunApp,
    Watcher,
    World,
    eventually,
    eventually_async,
    settings,
)
from redis.asyncio import Redis

from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.viewers import Viewers
from mien_signaling import audience, roster
from mien_signaling.app import create_app

pytestmark = pytest.mark.integration

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
ID = SESSION.session_id


def id_of(watcher: Watcher) -> str:
    return watcher.url.rpartition("/")[2]


@dataclass
class Two:
    """Two signaling services, and what an operator sees of their viewers."""

    first: World
    second: World
    viewers: Viewers

    async def listed(self) -> list[str]:
        return [viewer.viewer_id for viewer in await self.viewers.of_session(ID)]

    async def lists(self, *watchers: Watcher) -> None:
        """Return once the list has these viewers, all connected, and no others."""

        async def as_expected() -> bool:
            found = await self.viewers.of_session(ID)
            connected = {viewer.viewer_id for viewer in found if viewer.state == "connected"}
            return connected == {id_of(watcher) for watcher in watchers} and len(found) == len(watchers)

        await eventually_async(as_expected)
        assert await self.viewers.count(ID) == len(watchers)


@pytest.fixture
async def two(redis: Redis, redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        publisher = Publisher(redis)
        await stack.enter_async_context(publisher.live())
        worlds = []
        for _ in range(2):
            url = await run_app(create_app(settings(redis_server)))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))
            worlds.append(World(client, publisher, stack))
        yield Two(worlds[0], worlds[1], Viewers(redis))


async def test_an_operator_ends_one_viewer_and_the_others_watch_on(two: Two) -> None:
    one, other, elsewhere = await two.first.watcher(), await two.first.watcher(), await two.second.watcher()
    await asyncio.gather(*(watcher.see(5) for watcher in (one, other, elsewhere)))
    await two.lists(one, other, elsewhere)

    await two.viewers.end(ID, id_of(one))
    await eventually(lambda: one.peer.connectionState == "closed")
    await two.lists(other, elsewhere)
    await asyncio.gather(other.see(20), elsewhere.see(20))
    assert await two.first.metric('mien_viewers_gone_total{reason="operator"}') == 1
    assert await two.second.metric('mien_viewers_gone_total{reason="operator"}') == 0

    for _ in range(2):
        for answer in (
            await two.first.client.delete(one.url),
            await two.first.client.patch(one.url, content="", headers=FRAGMENT),
        ):
            assert (answer.status_code, answer.json()["type"]) == (410, "urn:mien:problem:viewer-ended")
            assert answer.json()["detail"] == "an operator has ended this viewer's connection"
    assert (await two.second.client.delete(one.url)).status_code == 404, "another service never had it"


async def test_a_viewer_that_was_ended_may_join_again(two: Two) -> None:
    watcher = await two.first.watcher()
    await two.lists(watcher)
    await two.viewers.end(ID, id_of(watcher))
    await eventually(lambda: watcher.peer.connectionState == "closed")
    again = await two.first.watcher()
    await again.see(10)
    await two.lists(again)


async def test_a_viewer_that_is_connecting_is_listed_and_can_be_ended(two: Two) -> None:
    """It has an answer, but never begins ICE."""
    peer = Watcher(two.second.client)
    await peer.peer.setLocalDescription(await peer.peer.createOffer())
    answer = await two.second.client.post(
        f"/v1/whep/{ID}", content=peer.peer.localDescription.sdp, headers={"Content-Type": "application/sdp"}
    )
    peer.url = answer.headers["location"]

    async def listed() -> bool:
        return await two.listed() == [id_of(peer)]

    await eventually_async(listed)
    (viewer,) = await two.viewers.of_session(ID)
    assert (viewer.state, viewer.sent_bps, viewer.loss_ratio) == ("connecting", 0, None)
    assert await two.viewers.count(ID) == 0
    await two.viewers.end(ID, id_of(peer))
    await until_ended(two.second, peer.url)
    await peer.close()


async def until_ended(world: World, url: str) -> None:
    async def ended() -> bool:
        return (await world.client.patch(url, content="", headers=FRAGMENT)).status_code == 410

    await eventually_async(ended)


async def test_the_list_says_what_a_viewer_gets(two: Two) -> None:
    watcher = await two.first.watcher()
    await watcher.see(60)

    async def reported() -> bool:
        (viewer,) = await two.viewers.of_session(ID)
        return viewer.loss_ratio is not None and viewer.sent_bps > 0

    await eventually_async(reported)
    (viewer,) = await two.viewers.of_session(ID)
    assert 0 <= (viewer.loss_ratio or 0) <= 1
    assert 100_000 < viewer.sent_bps < 10_000_000
    assert 150_000 <= viewer.target_bps <= 2_500_000


@pytest.mark.parametrize("changes", ["join", "leave"])
async def test_a_change_is_counted_without_waiting_for_a_keep_alive(
    two: Two, changes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "KEEP_ALIVE_INTERVAL_S", 1e9)
    watcher = await two.first.watcher()
    await two.lists(watcher)
    if changes == "leave":
        await two.first.client.delete(watcher.url)
        await two.lists()


async def test_orders_for_viewers_that_left_or_never_were_change_nothing(two: Two) -> None:
    watcher, gone = await two.first.watcher(), await two.first.watcher()
    assert (await two.first.client.delete(gone.url)).status_code == 200
    for viewer_id in (id_of(gone), "never-was", ""):
        await two.viewers.end(ID, viewer_id)
    await two.viewers.end("another-session", id_of(watcher))
    await watcher.see(45)  # longer than the interval at which orders are read
    assert (await two.first.client.delete(gone.url)).json()["type"] == "urn:mien:problem:viewer-not-found"
    await two.lists(watcher)


async def test_an_order_is_obeyed_after_redis_was_away(two: Two, redis_server: EmbeddedRedis) -> None:
    watcher, other = await two.first.watcher(), await two.second.watcher()
    await two.lists(watcher, other)
    redis_server.stop()
    await eventually_async(lambda: _is_unready(two.first.client))
    redis_server.start()
    await two.lists(watcher, other)  # the server came back empty
    await two.viewers.end(ID, id_of(watcher))
    await eventually(lambda: watcher.peer.connectionState == "closed")
    await other.see(20)


async def _is_unready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 503


async def test_only_the_newest_ended_viewers_are_remembered(
    redis: Redis, redis_server: EmbeddedRedis, run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "_ENDED_REMEMBERED", 2)
    async with AsyncExitStack() as stack:
        publisher = Publisher(redis)
        await stack.enter_async_context(publisher.live())
        url = await run_app(create_app(settings(redis_server)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))
        world = World(client, publisher, stack)
        watchers = [await world.watcher() for _ in range(3)]
        for watcher in watchers:
            await Viewers(redis).end(ID, id_of(watcher))
            await until_ended(world, watcher.url)
        answers = [await client.delete(watcher.url) for watcher in watchers]
        assert [answer.status_code for answer in answers] == [404, 410, 410]
