"""The metrics that every service has. The metrics of one service are in its own metrics.py.

Names begin with mien_, units are base units, and no label holds a session, a user or an address.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from mien_shared.clock import Clock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Steps of the latency budget: one frame at 30 fps takes 33 ms, and a conversation tolerates 200 ms.
LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.5)

#: Redis on the same network answers in well under a millisecond. The last bucket is the socket's timeout.
_ROUND_TRIP_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_LAG_PROBE_INTERVAL_S = 0.5
#: The build of the image writes the commit into this variable. It is not a setting.
_REVISION = "MIEN_REVISION"


class ServiceMetrics:
    """One service's metrics. Each object has its own registry, so that two services in one test share no counter."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # creation times double the number of series
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._build_info = Gauge(
            "mien_build_info",
            "Always 1; the labels name the build",
            ["service", "version", "revision"],
            registry=self.registry,
        )
        self._build_info.labels(service, version("mien-shared"), os.environ.get(_REVISION) or "unknown").set(1)
        self._ready = Gauge("mien_ready", "1 while /readyz answers 200, otherwise 0", registry=self.registry)
        self._loop_lag = Histogram(
            "mien_event_loop_lag_seconds",
            "Delay with which the event loop ran a timer",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._tasks = Gauge("mien_tasks", "Tasks that run on the event loop", registry=self.registry)
        self._redis_failures = Counter(
            "mien_redis_failures_total",
            "Steps of background loops that failed because Redis failed; the loop tries them again",
            registry=self.registry,
        )
        self._redis_up = Gauge("mien_redis_up", "1 while Redis answers, otherwise 0", registry=self.registry)
        self._redis_reconnects = Counter(
            "mien_redis_reconnects_total",
            "Number of times that Redis answered again after a failure",
            registry=self.registry,
        )
        self._redis_round_trip = Histogram(
            "mien_redis_round_trip_seconds",
            "Time from a PING to the answer of Redis",
            buckets=_ROUND_TRIP_BUCKETS_S,
            registry=self.registry,
        )
        self._channel_lag = Histogram(
            "mien_channel_lag_seconds",
            "Age of a message when it is read from a Redis stream: motion since the gateway received it, "
            "video since its encoding began",
            ["channel"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.redis_is_up = False
        self._redis_has_answered = False

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Read readiness from `is_ready` at every scrape."""
        self._ready.set_function(is_ready)

    def redis_failed(self) -> None:
        self.redis_is_up = False
        self._redis_failures.inc()
        self._redis_up.set(0)

    def redis_refused(self) -> None:
        """Redis answered a step with an error."""
        self._redis_failures.inc()

    def redis_answered(self) -> None:
        if self._redis_has_answered and not self.redis_is_up:
            self._redis_reconnects.inc()
        self.redis_is_up = self._redis_has_answered = True
        self._redis_up.set(1)

    def redis_round_trip(self, seconds: float) -> None:
        self._redis_round_trip.observe(seconds)

    def channel_lag(self, channel: Literal["motion", "video"], seconds: float) -> None:
        """Observe a message's age. Writer and reader may have different clocks: a negative age counts as 0."""
        self._channel_lag.labels(channel).observe(max(0.0, seconds))

    async def watch_event_loop(self, clock: Clock) -> None:
        """Measure the event loop's lag and its number of tasks until cancelled."""
        while True:
            self._tasks.set(len(asyncio.all_tasks()))
            before_s = clock.monotonic_s()
            await asyncio.sleep(_LAG_PROBE_INTERVAL_S)
            self._loop_lag.observe(max(0.0, clock.monotonic_s() - before_s - _LAG_PROBE_INTERVAL_S))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
