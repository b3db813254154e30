"""Orders, claims and Locations of publications in a real Redis, as gateways and signaling services use them."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.egress import Candidate, Egresses, EgressOrder, EgressState, Held, Renewal, Survey, orphans
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry

pytestmark = pytest.mark.integration

ORDER = EgressOrder(wanted=True, stream_key="key")
STATE = EgressState(state="connected", since_ms=1)
HELD = Held(ORDER, STATE, "https://sfu.test/1")


@pytest.fixture
async def egresses(redis: Redis) -> Egresses:
    """With one live session, "s"."""
    await Registry(redis).keep_alive(SessionRecord(session_id="s", avatar_id="a", created_at_ms=0))
    return Egresses(redis)


async def test_an_order_is_found_claimed_by_one_service_and_renewed(egresses: Egresses) -> None:
    assert (await egresses.survey(wants_all=False)).session_ids == []
    await egresses.order("s", ORDER)
    survey = await egresses.survey(wants_all=False)
    assert survey.session_ids == ["s"]
    [found] = await egresses.look(["s"], survey.ordered)
    assert found.is_free(wants_all=False) and found.order == ORDER
    assert [await egresses.claim("s", "one"), await egresses.claim("s", "two")] == [True, False]
    assert await egresses.renew("one", {"s": HELD}) == {"s": (Renewal.HELD, ORDER)}
    assert await egresses.renew("two", {"s": HELD}) == {"s": (Renewal.LOST, None)}
    assert await egresses.of_session("s") == (ORDER, STATE)
    [found] = await egresses.look(["s"])
    assert found.is_claimed and not found.is_free(wants_all=True)


async def test_a_claim_and_its_state_expire_and_another_service_takes_over(egresses: Egresses, redis: Redis) -> None:
    await egresses.order("s", ORDER)
    await egresses.claim("s", "one")
    await egresses.renew("one", {"s": HELD})
    assert 0 < await redis.pttl(keys.egress_owner("s")) <= keys.EGRESS_OWNER_S * 1000
    assert 0 < await redis.ttl(keys.egress_state("s")) <= keys.EGRESS_STATE_S
    await redis.delete(keys.egress_owner("s"))  # as if it had expired
    assert await egresses.claim("s", "two")
    assert (await egresses.of_session("s"))[1] is None, "the state of the last owner says nothing"
    assert await egresses.resource("s") == HELD.resource, "which the new owner must delete at the SFU"


async def test_only_the_owner_releases_and_only_its_location_is_forgotten(egresses: Egresses) -> None:
    await egresses.claim("s", "one")
    await egresses.release("s", "two")
    assert not await egresses.claim("s", "two")
    await egresses.keep_resource("s", "https://sfu.test/2")
    await egresses.forget_resource("s", "https://sfu.test/1")
    assert await egresses.resource("s") == "https://sfu.test/2"
    await egresses.forget_resource("s", "https://sfu.test/2")
    assert await egresses.resource("s") is None
    await egresses.release("s", "one")
    assert await egresses.claim("s", "two")


async def test_an_empty_redis_is_filled_by_the_renewal(egresses: Egresses, redis: Redis) -> None:
    await egresses.claim("s", "one")
    await redis.flushall()
    assert await egresses.renew("one", {"s": HELD}) == {"s": (Renewal.HELD, ORDER)}
    assert await egresses.of_session("s") == (ORDER, STATE)
    assert (await egresses.survey(wants_all=False)).resources == {"s": "https://sfu.test/1"}


async def test_what_an_operator_withdrew_is_not_brought_back(egresses: Egresses) -> None:
    await egresses.order("s", ORDER)
    await egresses.claim("s", "one")
    await egresses.order("s", EgressOrder(wanted=False))
    [(renewal, order)] = (await egresses.renew("one", {"s": HELD})).values()
    assert renewal is Renewal.HELD and order is not None and not order.wanted
    [found] = await egresses.look(["s"])
    assert not found.is_free(wants_all=True), "also where all sessions are published"


async def test_an_ended_session_has_no_order_no_state_and_no_claim_is_renewed(egresses: Egresses, redis: Redis) -> None:
    await egresses.order("s", ORDER)
    await egresses.claim("s", "one")
    await egresses.renew("one", {"s": HELD})
    await Registry(redis).end_session("s")
    assert await egresses.of_session("s") == (None, None)
    assert await egresses.renew("one", {"s": HELD}) == {"s": (Renewal.ENDED, None)}
    [found] = await egresses.look(["s"], ordered={"s"})
    assert found.has_ended and not found.is_free(wants_all=True)
    assert await redis.smembers(keys.EGRESSES) == set()
    assert await egresses.resource("s") == HELD.resource, "until a service has deleted it at the SFU"


async def test_all_sessions_are_candidates_where_all_are_published(egresses: Egresses) -> None:
    survey = await egresses.survey(wants_all=True)
    assert survey.session_ids == ["s"]
    [found] = await egresses.look(survey.session_ids, survey.ordered)
    assert found.is_free(wants_all=True) and not found.is_free(wants_all=False)


async def test_gateways_know_whether_there_is_an_sfu(egresses: Egresses) -> None:
    assert not await egresses.has_sfu()
    await egresses.survey(wants_all=False)
    assert await egresses.has_sfu()


async def test_what_another_version_wrote_is_no_order(egresses: Egresses, redis: Redis) -> None:
    await redis.set(keys.egress_order("s"), b'{"wanted": "perhaps"}', ex=10)
    await redis.set(keys.egress_state("s"), b"[]", ex=10)
    assert await egresses.of_session("s") == (None, None)


def test_orphans_are_locations_that_no_service_publishes_or_will() -> None:
    survey = Survey(frozenset({"wanted"}), frozenset(), {"wanted": "u1", "claimed": "u2", "ended": "u3", "off": "u4"})
    found = [
        Candidate("wanted", ORDER, is_claimed=False, has_ended=False, is_recorded=True),
        Candidate("claimed", ORDER, is_claimed=True, has_ended=False, is_recorded=True),
        Candidate("ended", None, is_claimed=False, has_ended=True, is_recorded=False),
        Candidate("off", EgressOrder(wanted=False), is_claimed=False, has_ended=False, is_recorded=True),
    ]
    assert orphans(survey, found, wants_all=False) == ["ended", "off"]
