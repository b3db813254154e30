"""The registry on a real Redis: sessions that live by use, leases that lapse, slots that are never sold twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from outages import DelayingProxy, stopped
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import EndReason, GeneratorStatus, SessionRecord, SessionStats
from mien_shared.bus.placement import NoGenerator, hand_over
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, LEASE_TTL_MS, OpenUplink, Registry, Renewal

pytestmark = pytest.mark.integration

STATUS = GeneratorStatus(generator_id="g", capacity=4, sessions=1, backend="warp")
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
    renewals = await registry.heartbeat(STATUS, ["one", "two", "three", "four"])
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
    assert await registry.heartbeat(STATUS) == {}
    assert await registry.taken_slots("g") == 0


async def test_a_generator_with_many_sessions_renews_them_all(registry: Registry) -> None:
    names = [f"s{number}" for number in range(1000)]
    assert set((await registry.heartbeat(STATUS, names)).values()) == {Renewal.UNRECORDED}
    assert await registry.taken_slots("g") == len(names)


async def test_a_renewal_after_redis_came_back_empty(registry: Registry, redis_server: EmbeddedRedis) -> None:
    await registry.keep_alive(ONE)
    assert await registry.heartbeat(STATUS, ["one"]) == {"one": Renewal.HELD}
    await asyncio.to_thread(redis_server.stop)
    await asyncio.to_thread(redis_server.start)
    assert await registry.heartbeat(STATUS, ["one"]) == {"one": Renewal.UNRECORDED}
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
    assert await registry.heartbeat(STATUS, ["one"]) == {"one": Renewal.ENDED}
    assert await registry.taken_slots("g") == 0


async def test_renewing_frees_the_slots_of_sessions_that_ended(registry: Registry) -> None:
    await registry.heartbeat(GeneratorStatus(generator_id="g", capacity=4, sessions=1, backend="warp"))
    assert await registry.reserve("g", "ended", capacity=4, ttl_ms=30)
    assert await registry.hold("g", "one")
    await asyncio.sleep(0.05)
    await registry.heartbeat(STATUS, ["one"])
    assert await registry.redis.zrange(keys.slots("g"), 0, -1) == [b"one"]


FIGURES = SessionStats(
    fps=30,
    bitrate_bps=1,
    uplink_bps=2,
    motion_to_packet_ms_p50=None,
    motion_to_packet_ms_p99=None,
    backend="none",
    tier="warp",
    idle=False,
)


async def test_a_heartbeat_writes_the_figures_of_live_sessions_alone(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    await registry.end_session("two")
    await registry.heartbeat(STATUS, ["one", "two"], {"one": FIGURES, "two": FIGURES})
    assert await registry.stats("one") == FIGURES
    assert await registry.stats("two") is None
    assert await registry.owner("two") is None, "an ended session is held by no generator"


async def test_a_session_is_taken_only_if_it_may_be_started(registry: Registry) -> None:
    await registry.keep_alive(ONE)
    assert await registry.take("g", "one", capacity=1) is Renewal.HELD
    assert await registry.take("g", "one", capacity=1) is Renewal.HELD, "by its own holder again"
    assert await registry.take("h", "one", capacity=1) is Renewal.TAKEN_OVER
    assert await registry.take("h", "unknown", capacity=1) is Renewal.UNRECORDED
    await registry.end_session("two")
    assert await registry.take("h", "two", capacity=1) is Renewal.ENDED
    assert await registry.taken_slots("h") == 0
    await registry.keep_alive(SessionRecord(session_id="more", avatar_id="mien", created_at_ms=3))
    await registry.hold("g", "more")
    assert await registry.take("g", "more", capacity=1) is Renewal.FULL
    assert await registry.owner("more") is None, "so that another generator can claim it"
    assert await registry.owner("one") == "g"


async def test_a_session_with_which_two_devices_were_lost_is_told(registry: Registry) -> None:
    await registry.keep_all_alive([ONE, TWO])
    assert await registry.accuse(["one", "two"]) == [], "the first device may have been lost by chance"
    assert await registry.accuse(["one"]) == ["one"]
    assert await registry.accuse([]) == []
    assert await registry.sessions() == [TWO, ONE]


# Ended means ended


@pytest.fixture
async def paused(registry: Registry, redis_server: EmbeddedRedis) -> AsyncIterator[tuple[Registry, SessionRecord]]:
    """The registry of a service that keeps ONE alive, and the record as this service last saw it."""
    await registry.keep_alive(ONE)
    async with open_redis(redis_server.url) as redis:
        other = Registry(redis)
        seen = await other.session("one")
        assert seen is not None
        yield other, seen


async def marks_lapse(registry: Registry, session_id: str) -> None:
    async with asyncio.timeout(5):
        while await registry.was_ended(session_id):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kept_in_between", [False, True])
async def test_a_service_that_was_paused_for_longer_than_the_mark_revives_nothing(
    registry: Registry,
    paused: tuple[Registry, SessionRecord],
    monkeypatch: pytest.MonkeyPatch,
    kept_in_between: bool,
) -> None:
    monkeypatch.setattr(keys, "ENDED_S", 0.3)
    other, seen = paused
    if kept_in_between:
        kept = await other.keep_alive(seen)
        assert kept is not None
        seen = kept
    await registry.end_session("one", EndReason.OPERATOR)
    await marks_lapse(registry, "one")
    assert await other.keep_alive(seen) is None
    assert (await other.keep_all_alive([seen, TWO]))["one"] is None
    assert await other.session("one") is None


async def test_uplinks_of_a_gateway_that_was_paused_revive_nothing(
    registry: Registry, paused: tuple[Registry, SessionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ENDED_S", 0.3)
    other, seen = paused
    await registry.end_session("one")
    await marks_lapse(registry, "one")
    assert await other.keep_uplinks([OpenUplink(seen, "c")], 60) == {"one": None}
    assert await other.session("one") is None


async def test_a_record_that_expired_while_redis_did_not_answer_is_written_again(
    registry: Registry, paused: tuple[Registry, SessionRecord]
) -> None:
    """A record lives for a minute and a mark for an hour: what is missing after two minutes was not ended."""
    other, seen = paused
    await registry.redis.delete(keys.record("one"))  # what its time to live does
    assert seen.seen_ms is not None
    long_ago = seen.model_copy(update={"seen_ms": seen.seen_ms - 120_000})
    assert await other.keep_alive(long_ago) is not None
    assert await registry.session("one") is not None


async def test_a_redis_that_came_back_empty_is_filled_even_by_a_service_with_a_faster_clock(
    registry: Registry, redis_server: EmbeddedRedis, paused: tuple[Registry, SessionRecord]
) -> None:
    other, seen = paused
    async with stopped(redis_server):
        pass
    assert seen.seen_ms is not None
    assert await other.keep_alive(seen.model_copy(update={"seen_ms": seen.seen_ms + 10_000_000})) is not None


async def test_nobody_s_records_are_kept_alive(registry: Registry) -> None:
    assert await registry.keep_all_alive([]) == {}


# Round trips


async def test_a_heartbeat_and_the_keep_alives_take_one_round_trip_each(
    registry: Registry, redis_server: EmbeddedRedis
) -> None:
    """Over a link of 200 ms; leases of twenty sessions hold, of which a beat of seven round trips lost a quarter."""
    names = [f"s{number}" for number in range(20)]
    sessions = [SessionRecord(session_id=name, avatar_id="mien", created_at_ms=1) for name in names]
    await registry.keep_all_alive(sessions)
    figures = dict.fromkeys(names, FIGURES)
    async with DelayingProxy(redis_server, delay_s=0.1) as proxy, open_redis(proxy.url) as slow:
        far = Registry(slow)
        await far.heartbeat(STATUS, names, figures)  # connects, and loads the scripts
        before = proxy.round_trips
        assert set((await far.heartbeat(STATUS, names, figures)).values()) == {Renewal.HELD}
        assert proxy.round_trips - before == 1
        uplinks = [OpenUplink(session, "c") for session in sessions]
        for call in (
            lambda: far.keep_all_alive(sessions),
            lambda: far.keep_uplinks(uplinks, 60),
            lambda: far.uplink_states(names),
        ):
            await call()
            before = proxy.round_trips
            await call()
            assert proxy.round_trips - before == 1
        await far.heartbeat(STATUS, names)
        beating = asyncio.create_task(beat(far, names))
        try:
            for _ in range(60):
                assert await registry.owners(names) == dict.fromkeys(names, "g")
                await asyncio.sleep(0.05)
        finally:
            beating.cancel()


async def beat(registry: Registry, names: list[str]) -> None:
    while True:
        await registry.heartbeat(STATUS, names, dict.fromkeys(names, FIGURES))
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)
