"""What becomes of a publication when the SFU, a signaling service or Redis' data is lost. With a real Janus."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from integration.janus import subscribed, why_impossible
from integration.sfu_world import PATIENCE_S, SfuWorld, sees, sfu_world
from integration.test_signaling_media import SESSION, RunApp
from integration.voice_peers import until
from pydantic import SecretStr

from mien_shared.bus import keys
from mien_shared.bus.egress import EgressError, EgressOrder
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.registry import Registry

_WHY_NOT = why_impossible()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.long,
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]


@pytest.fixture
async def world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[SfuWorld]:
    async with sfu_world(redis_server, run_app) as found:
        yield found


async def test_a_killed_sfu_is_joined_again_when_it_is_back(world: SfuWorld) -> None:
    await world.signaling()
    await world.order()
    await world.becomes("connected")
    await world.janus.kill()
    await world.becomes("retrying")
    _, state = await world.egresses.of_session(SESSION.session_id)
    assert state is not None and state.error in {EgressError.SILENT, EgressError.CLOSED, EgressError.REFUSED}
    await world.janus.start()
    await world.becomes("connected")
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await sees(viewer)


async def test_an_sfu_that_hangs_is_left_and_joined_again(world: SfuWorld) -> None:
    await world.signaling()
    await world.order()
    await world.becomes("connected")
    os.kill(world.janus.pid, signal.SIGSTOP)
    try:
        await until(lambda: bool(world.front.deletes), PATIENCE_S)
    finally:
        os.kill(world.janus.pid, signal.SIGCONT)
    await world.becomes("connected")
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await sees(viewer)


async def test_another_service_takes_over_from_one_that_was_killed(world: SfuWorld) -> None:
    killed = await world.signaling_process()
    await world.order()
    await world.becomes("connected")
    ghost = await world.egresses.resource(SESSION.session_id)
    killed.kill()
    await world.signaling()
    await until(lambda: len(world.front.posts) >= 2, PATIENCE_S)
    await world.becomes("connected")
    assert ghost is not None and world.front.deletes[0] == (ghost.rpartition("/")[2], 200)
    assert world.front.posts == [(SESSION.session_id, 201)] * 2, "the old publication is deleted before a new one"
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await sees(viewer)
        assert len(await world.janus.publishers()) == 1


async def test_what_a_killed_service_left_of_an_ended_session_is_deleted(world: SfuWorld) -> None:
    killed = await world.signaling_process()
    await world.order()
    await world.becomes("connected")
    killed.kill()
    await Registry(world.redis).end_session(SESSION.session_id)
    await world.signaling()
    await until(lambda: not world.front.handles, PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while await world.egresses.resource(SESSION.session_id):
            await asyncio.sleep(0.05)
    assert len(world.front.posts) == 1


async def test_one_of_several_services_publishes_and_the_others_take_over_from_one_that_stops(world: SfuWorld) -> None:
    first = await world.signaling_process()
    await world.order()
    await world.becomes("connected")
    await world.signaling()
    await world.signaling()
    owner = await world.redis.get(keys.egress_owner(SESSION.session_id))
    await asyncio.sleep(2.5)  # several rounds, in which no other service may claim it
    assert await world.redis.get(keys.egress_owner(SESSION.session_id)) == owner
    assert len(world.front.posts) == 1
    first.terminate()
    await until(lambda: len(world.front.posts) == 2 and len(world.front.handles) == 1, PATIENCE_S)
    await world.becomes("connected")
    assert len(await world.janus.publishers()) == 1


async def test_an_empty_redis_is_filled_again_and_the_publication_stays(world: SfuWorld) -> None:
    await world.signaling()
    await world.order()
    await world.becomes("connected")
    async with subscribed(world.janus, SESSION.session_id) as viewer:
        await world.redis.flushall()
        await world.becomes("connected")
        order, _ = await world.egresses.of_session(SESSION.session_id)
        assert order is not None and order.wanted
        assert await world.egresses.resource(SESSION.session_id) is not None
        await sees(viewer)
    assert len(world.front.posts) == 1


async def test_a_publication_ends_with_its_session(world: SfuWorld) -> None:
    await world.signaling()
    await world.order()
    await world.becomes("connected")
    await Registry(world.redis).end_session(SESSION.session_id)
    await until(lambda: not world.front.handles, PATIENCE_S)
    assert await world.janus.publishers() == []
    await world.becomes(None)


async def test_an_order_that_is_withdrawn_before_the_sfu_has_answered_leaves_nothing_there(world: SfuWorld) -> None:
    world.front.delay_s = 3.0
    await world.signaling()
    await world.order()
    await until(lambda: bool(world.front.handles), PATIENCE_S)
    assert world.front.posts == [], "the SFU has the publication, and signaling does not know where"
    await world.order(wanted=False)
    await until(lambda: not world.front.handles, PATIENCE_S)
    await world.becomes(None)
    assert len(world.front.posts) == 1


async def test_another_stream_key_publishes_anew_and_the_same_order_does_not(world: SfuWorld) -> None:
    await world.signaling(sfu_whip_url=f"{world.front_url}/whip/{{stream_key}}")
    for key in ("one", "one", "two"):
        await world.egresses.order(SESSION.session_id, EgressOrder(wanted=True, stream_key=key))
        await until(lambda key=key: [name for name, _ in world.front.handles.values()] == [key], PATIENCE_S)  # type: ignore[misc]
        await world.becomes("connected")
        await asyncio.sleep(2.5)  # two renewals, which see the order
    assert world.front.posts == [("one", 201), ("two", 201)]


async def test_an_sfu_that_refuses_is_asked_less_and_less_often(world: SfuWorld) -> None:
    client = await world.signaling(sfu_bearer=SecretStr("another"))
    await world.order()
    await until(lambda: len(world.front.posts) >= 3, PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            _, state = await world.egresses.of_session(SESSION.session_id)
            if state is not None and state.failures >= 3 and state.state == "retrying":
                break
            await asyncio.sleep(0.05)
    assert (state.error, state.status) == (EgressError.REFUSED, 403)
    assert 'mien_sfu_attempts_total{result="refused"}' in (await client.get("/metrics")).text
