"""A token bucket a caller, few of them, and what is one caller."""

from __future__ import annotations

import pytest

from mien_shared.http import limits
from mien_shared.http.limits import RateLimiter, caller_of
from mien_shared.http.problems import Problem


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    limiter = RateLimiter(per_minute=60)
    assert [limiter.wait_s("a", 0.0) for _ in range(15)] == [0.0] * 15
    assert limiter.wait_s("a", 0.0) == pytest.approx(1.0)
    assert limiter.wait_s("a", 0.5) == pytest.approx(0.5)
    assert limiter.wait_s("a", 1.0) == 0.0
    assert limiter.wait_s("a", 1.0) == pytest.approx(1.0)


def test_addresses_do_not_share() -> None:
    limiter = RateLimiter(per_minute=4)
    assert limiter.wait_s("a", 0.0) == 0.0
    assert limiter.wait_s("a", 0.0) > 0
    assert limiter.wait_s("b", 0.0) == 0.0


def test_rest_does_not_save_up_more_than_a_burst() -> None:
    limiter = RateLimiter(per_minute=8)
    assert [limiter.wait_s("a", 1e6) > 0 for _ in range(3)] == [False, False, True]


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CALLERS", 3)
    limiter = RateLimiter(per_minute=4)
    for address in "abc":
        limiter.wait_s(address, 0.0)
    assert limiter.wait_s("a", 0.0) > 0
    limiter.wait_s("d", 0.0)  # "b" was quiet longest and is forgotten
    assert limiter.wait_s("a", 0.0) > 0
    assert limiter.wait_s("b", 0.0) == 0.0


def test_a_demand_is_met_or_answered_with_when_to_come_back() -> None:
    limiter = RateLimiter(per_minute=4)
    limiter.demand("a", 0.0)
    with pytest.raises(Problem) as refused:
        limiter.demand("a", 0.0, "API key")
    assert (refused.value.status, refused.value.code) == (429, "too-many-requests")
    assert refused.value.detail == "too many requests from this API key"
    assert refused.value.headers == {"Retry-After": "15"}
    limiter.demand("a", 15.0)


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_a_caller_is_an_address_or_an_ipv6_subscriber(host: str | None, caller: str) -> None:
    assert caller_of(host) == caller
