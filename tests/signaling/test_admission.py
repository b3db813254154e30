from __future__ import annotations

import pytest

from mien_signaling import admission
from mien_signaling.admission import RateLimiter


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
    monkeypatch.setattr(admission, "MAX_ADDRESSES", 3)
    limiter = RateLimiter(per_minute=4)
    for address in "abc":
        limiter.wait_s(address, 0.0)
    assert limiter.wait_s("a", 0.0) > 0
    limiter.wait_s("d", 0.0)  # "b" was quiet longest and is forgotten
    assert limiter.wait_s("a", 0.0) > 0
    assert limiter.wait_s("b", 0.0) == 0.0
