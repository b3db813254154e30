"""What every service measures of itself, as Prometheus would read it."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.probe import RedisProbe
from mien_shared.bus.rights import GATEWAY
from mien_shared.clock import SystemClock
from mien_shared.metrics import ServiceMetrics


def value(metrics: ServiceMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_first_answer_is_no_reconnect_and_one_outage_is_one() -> None:
    metrics = ServiceMetrics("trial")
    metrics.redis_failed()
    metrics.redis_answered()
    assert value(metrics, "mien_redis_reconnects_total") == 0
    for _ in range(3):
        metrics.redis_failed()
    assert (value(metrics, "mien_redis_up"), metrics.redis_is_up) == (0, False)
    for _ in range(3):
        metrics.redis_answered()
    assert value(metrics, "mien_redis_reconnects_total") == 1
    assert value(metrics, "mien_redis_failures_total") == 4
    assert (value(metrics, "mien_redis_up"), metrics.redis_is_up) == (1, True)


def test_readiness_is_read_at_the_scrape() -> None:
    metrics, answers = ServiceMetrics("trial"), [True]
    metrics.watch_readiness(lambda: answers[0])
    assert value(metrics, "mien_ready") == 1
    answers[0] = False
    assert value(metrics, "mien_ready") == 0


def test_a_reader_whose_clock_is_behind_counts_no_lag() -> None:
    metrics = ServiceMetrics("trial")
    metrics.channel_lag("motion", -3.0)
    metrics.channel_lag("motion", 0.25)
    assert value(metrics, "mien_channel_lag_seconds_sum", channel="motion") == 0.25
    assert value(metrics, "mien_channel_lag_seconds_count", channel="motion") == 2


async def test_a_round_trip_is_measured_only_when_it_is_answered() -> None:
    metrics = ServiceMetrics("trial")
    with EmbeddedRedis() as server:
        async with open_redis(server.url) as redis:
            probe = RedisProbe(redis, GATEWAY, SystemClock(), metrics)
            await probe.step()
            assert value(metrics, "mien_redis_round_trip_seconds_count") == 1
            server.stop()
            with pytest.raises((RedisConnectionError, OSError)):
                await probe.step()
    assert value(metrics, "mien_redis_round_trip_seconds_count") == 1
