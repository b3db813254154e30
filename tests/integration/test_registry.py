"""The registry on a real Redis: sessions that live by use, leases that lapse, slots that are never sold twice."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import GeneratorStatus, SessionRecord
from mien_shared.bus.placement import NoGenerator, hand_over
from mien_shared.bus.registry import LEASE_TTL_MS, Registry, Renewal

pytestmark = pytest.mark.integration

ONE = SessionRecord(session_id="one", avatar_id="mien", created_at_ms=2)
TWO = SessionRecord(session_id="two", avatar_id="mien", created_at_ms=1)


@pytest.fixture
def registry(redis: Redis) -> Registry:
    return Registry(redis)


async def test_sessions_are_listed_oldest_first_until_they_lapse(registry: Registry) -> None:
    assert await registry.keep_alive(ONE)
    assert await registry.keep_alive(TWO)
    assert await registry.sessions() == [TWO, ONE]
    await registry.redis.delete(keys.record("two"))  # what its time to live does
    assert await registry.sessions() == [ONE]
    assert await registry.redis.smembers(keys.SESSIONS) == {b"one"}


async def test_a_record_nobody_writes_again_has_a_time_to_live(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    assert 0 < await registry.redis.ttl(keys.record("one")) <= 60


async def test_an_ended_session_cannot_be_brought_back(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    await registry.hold("g", "one")
    await registry.end_session("one")
    assert not await registry.keep_alive(ONE)
    assert await registry.sessions() == []
    assert await registry.session("one") is None
    assert await registry.owner("one") is None
    assert await registry.was_ended("one")


async def test_viewers_count_over_all_services_until_they_are_overdue(registry: Registry) -> None:
    await registry.put_viewers("one", ["a", "b"], now_s=100.0)
    await registry.put_viewers("one", ["c"], now_s=104.0)
    await registry.put_viewers("one", [], now_s=104.0)
    assert await registry.viewers("one", 104.0) == 3
    await registry.put_viewers("one", ["b"], now_s=105.0)
    assert await registry.viewers("one", 108.0) == 2
    assert await registry.viewers("one", 200.0) == 0


async def test_a_redis_that_came_back_empty_is_filled_by_a_sessions_users(
    registry: Registry, redis_server: EmbeddedRedis
) -> None:
    await registry.keep_alive(ONE)
    await registry.hold("g", "one")
    await asyncio.to_thread(redis_server.stop)
    await asyncio.to_thread(redis_server.start)
    assert await registry.sessions() == []
    assert await registry.keep_alive(ONE)
    assert await registry.hold("g", "one")
    assert await registry.sessions() == [ONE]
    assert await registry.owner("one") == "g"


async def test_one_generator_holds_a_session(registry: Registry) -> None:
    assert await registry.hold("g", "one")
    assert await registry.hold("g", "one")
    assert not await registry.hold("h", "one")
    await registry.release("h", "one")
    assert await registry.owner("one") == "g"
    await registry.release("g", "one")
    assert await registry.hold("h", "one")


async def test_a_lease_that_is_not_renewed_lapses(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    assert await registry.hold("g", "one", ttl_ms=30)
    assert list(await registry.orphans()) == []
    await asyncio.sleep(0.05)
    assert list(await registry.orphans()) == [ONE]
    assert await registry.hold("h", "one")


async def test_leases_and_slots_are_renewed_together(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    await registry.hold("h", "two")
    await registry.end_session("three")
    renewals = await registry.renew("g", ["one", "two", "three", "four"])
    assert renewals == {
        "one": Renewal.HELD,
        "two": Renewal.TAKEN_OVER,
        "three": Renewal.ENDED,
        "four": Renewal.UNRECORDED,
    }
    assert await registry.owners(["one", "two", "four"]) == {"one": "g", "two": "h", "four": "g"}
    assert 0 < await registry.redis.pttl(keys.lease("one")) <= LEASE_TTL_MS
    assert await registry.taken_slots("g") == 2, "what another generator holds, and what has ended, takes no slot here"
    assert not await registry.reserve("g", "five", capacity=2)


async def test_nothing_is_renewed_where_nothing_is_held(registry: Registry) -> None:
    assert await registry.renew("g", []) == {}
    assert await registry.taken_slots("g") == 0


async def test_a_generator_with_many_sessions_renews_them_all(registry: Registry) -> None:
    names = [f"s{number}" for number in range(1000)]
    assert set((await registry.renew("g", names)).values()) == {Renewal.UNRECORDED}
    assert await registry.taken_slots("g") == len(names)


async def test_a_renewal_after_redis_came_back_empty(registry: Registry, redis_server: EmbeddedRedis) -> None:
    await registry.keep_alive(ONE)
    assert await registry.renew("g", ["one"]) == {"one": Renewal.HELD}
    await asyncio.to_thread(redis_server.stop)
    await asyncio.to_thread(redis_server.start)
    assert await registry.renew("g", ["one"]) == {"one": Renewal.UNRECORDED}
    assert await registry.owner("one") == "g"


async def test_owners_in_one_round_trip(registry: Registry) -> None:
    await registry.hold("g", "one")
    assert await registry.owners(["one", "two"]) == {"one": "g"}
    assert await registry.owners([]) == {}


async def test_two_gateways_race_for_the_last_slot(registry: Registry) -> None:
    tries = [registry.reserve("g", f"s{number}", capacity=3) for number in range(20)]
    assert sum(await asyncio.gather(*tries)) == 3
    assert await registry.taken_slots("g") == 3


async def test_a_session_that_has_a_slot_renews_it_when_all_are_taken(registry: Registry) -> None:
    assert await registry.reserve("g", "one", capacity=1)
    assert await registry.reserve("g", "one", capacity=1)
    assert not await registry.reserve("g", "two", capacity=1)
    await registry.free_slot("g", "one")
    assert await registry.reserve("g", "two", capacity=1)


async def test_a_reservation_that_is_not_taken_up_lapses(registry: Registry) -> None:
    assert await registry.reserve("g", "one", capacity=1, ttl_ms=30)
    await asyncio.sleep(0.05)
    assert await registry.taken_slots("g") == 0
    assert await registry.reserve("g", "two", capacity=1)


async def test_generators_live_by_their_heartbeat(registry: Registry) -> None:
    status = GeneratorStatus(generator_id="g", capacity=4, sessions=0, backend="warp")
    await registry.heartbeat(status)
    assert await registry.generators() == [status]
    await registry.redis.delete(keys.status("g"))  # what its time to live does
    assert await registry.generators() == []
    assert await registry.redis.smembers(keys.GENERATORS) == set()
    await registry.heartbeat(status)
    await registry.remove_generator("g")
    assert await registry.generators() == []


async def test_a_generator_that_leaves_is_not_handed_its_own_session(registry: Registry) -> None:
    await registry.heartbeat(GeneratorStatus(generator_id="leaving", capacity=4, sessions=1, backend="warp"))
    assert await registry.hold("leaving", "one")
    with pytest.raises(NoGenerator):  # though its last heartbeat did not say that it leaves
        await hand_over(registry, ONE, "leaving")
    await registry.heartbeat(GeneratorStatus(generator_id="staying", capacity=4, sessions=3, backend="warp"))
    assert await hand_over(registry, ONE, "leaving") == "staying"
    assert await registry.owner("one") == "staying"
    assert await hand_over(registry, ONE, "leaving") is None, "it is not its holder's any more"
    assert await registry.taken_slots("leaving") == 0


async def test_renewing_does_not_take_an_ended_session_s_slot_again(registry: Registry) -> None:
    assert await registry.reserve("g", "one", capacity=4)
    await registry.keep_alive(ONE)
    assert await registry.hold("g", "one")
    await registry.end_session("one")
    await registry.free_slot("g", "one")
    assert await registry.renew("g", ["one"]) == {"one": Renewal.ENDED}
    assert await registry.taken_slots("g") == 0


async def test_renewing_frees_the_slots_of_sessions_that_ended(registry: Registry) -> None:
    await registry.heartbeat(GeneratorStatus(generator_id="g", capacity=4, sessions=1, backend="warp"))
    assert await registry.reserve("g", "ended", capacity=4, ttl_ms=30)
    assert await registry.hold("g", "one")
    await asyncio.sleep(0.05)
    await registry.renew("g", ["one"])
    assert await registry.redis.zrange(keys.slots("g"), 0, -1) == [b"one"]
