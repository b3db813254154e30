"""Operators order the egress of sessions over HTTP. tests/integration/test_sfu.py has signaling's side."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from integration.callers import now_ms
from redis.asyncio import Redis

from mien_gateway import audit
from mien_shared.bus import keys
from mien_shared.bus.egress import EgressError, Egresses, EgressOrder, EgressState, Held
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry

pytestmark = pytest.mark.integration

PATH = "/v1/sessions/one/egress"


@pytest.fixture
async def egresses(redis: Redis) -> Egresses:
    """A session, and a signaling service with an SFU."""
    await Registry(redis).keep_alive(SessionRecord(session_id="one", avatar_id="someone", created_at_ms=now_ms()))
    egresses = Egresses(redis)
    await egresses.survey(wants_all=False)
    return egresses


async def problem(gateway: Any, method: str, path: str, **options: Any) -> tuple[int, str]:
    answer = await gateway.http.request(method, path, **options)
    return answer.status_code, answer.json()["type"].removeprefix("urn:mien:problem:")


async def test_an_order_is_written_once_and_read_back(start_gateway: Any, egresses: Egresses) -> None:
    gateway = await start_gateway()
    answer = await gateway.http.post(PATH, json={"stream_key": "key"})
    assert answer.status_code == 202, answer.text
    assert (answer.json()["ordered"], answer.json()["state"]) == (True, "waiting")
    assert "key" not in answer.text.replace("stream_key", "")
    assert await egresses.of_session("one") == (EgressOrder(wanted=True, stream_key="key"), None)
    assert (await gateway.http.post(PATH)).status_code == 202, "a body is not needed"
    assert await egresses.of_session("one") == (EgressOrder(wanted=True), None)
    assert (await gateway.http.get(PATH)).json()["state"] == "waiting"


async def test_the_state_is_what_the_publishing_service_says(start_gateway: Any, egresses: Egresses) -> None:
    gateway = await start_gateway()
    await egresses.order("one", EgressOrder(wanted=True))
    await egresses.claim("one", "service")
    state = EgressState(state="retrying", since_ms=5, failures=2, error=EgressError.REFUSED, status=403)
    await egresses.renew("service", {"one": Held(EgressOrder(wanted=True), state, None)})
    assert (await gateway.http.get(PATH)).json() == {
        "ordered": True,
        "state": "retrying",
        "since_ms": 5,
        "failures": 2,
        "error": "refused",
        "status": 403,
        "loss_ratio": None,
        "rtt_ms": None,
    }


async def test_an_egress_is_withdrawn(start_gateway: Any, egresses: Egresses) -> None:
    gateway = await start_gateway()
    await gateway.http.post(PATH)
    assert (await gateway.http.delete(PATH)).status_code == 204
    assert await problem(gateway, "GET", PATH) == (404, "no-egress")
    assert await problem(gateway, "DELETE", PATH) == (404, "no-egress")
    assert await egresses.of_session("one") == (EgressOrder(wanted=False), None)


async def test_without_an_sfu_nothing_is_ordered(start_gateway: Any, egresses: Egresses, redis: Redis) -> None:
    gateway = await start_gateway()
    await redis.delete(keys.EGRESS_READY)
    assert await problem(gateway, "POST", PATH) == (409, "no-sfu")
    assert await egresses.of_session("one") == (None, None)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_that_does_not_exist_has_no_egress(start_gateway: Any, egresses: Egresses, method: str) -> None:
    gateway = await start_gateway()
    assert await problem(gateway, method, "/v1/sessions/other/egress") == (404, "session-not-found")


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_only_operators_order_and_read(start_gateway: Any, egresses: Egresses, method: str) -> None:
    gateway = await start_gateway()
    answer = await gateway.anyone.request(method, PATH)
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:mien:problem:api-key-missing")


@pytest.mark.parametrize("key", ["", "a/b", "a b", "{x}", "x" * 1025, "\n"])
async def test_a_stream_key_cannot_change_the_url(start_gateway: Any, egresses: Egresses, key: str) -> None:
    gateway = await start_gateway()
    assert await problem(gateway, "POST", PATH, json={"stream_key": key}) == (422, "invalid-request")


async def test_a_url_in_the_body_is_not_taken(start_gateway: Any, egresses: Egresses) -> None:
    gateway = await start_gateway()
    assert (await gateway.http.post(PATH, json={"url": "http://169.254.169.254/"})).status_code == 202
    assert await egresses.of_session("one") == (EgressOrder(wanted=True), None)


async def test_orders_are_in_the_audit_log(
    start_gateway: Any, egresses: Egresses, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    with caplog.at_level(logging.INFO, logger="mien.audit"):
        await gateway.http.post(PATH, json={"stream_key": "a-secret-key"})
        await gateway.http.delete(PATH)
    lines = [record for record in caplog.records if record.name == "mien.audit"]
    assert [record.message for record in lines] == ["egress ordered", "egress withdrawn"]
    assert all(record.session == audit.digest("one") for record in lines)  # type: ignore[attr-defined]
    assert "a-secret-key" not in str([record.__dict__ for record in caplog.records])
