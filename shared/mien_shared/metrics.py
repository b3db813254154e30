"""What every service measures about itself; each service's own facts stand in its own metrics.py.

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

#: The latency budget's own steps: one frame at 30 fps is 33 ms, a conversation bears 200 ms.
LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.5)

#: Redis on the same network answers in well under a millisecond; beyond its socket's timeout nothing is measured.
_ROUND_TRIP_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_LAG_PROBE_INTERVAL_S = 0.5
#: A fact of the image, not a setting: its build writes the commit there.
_REVISION = "MIEN_REVISION"


class ServiceMetrics:
    """One registry a process, so that two services in one test never share a counter."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when each series began: as many series again, and nobody asks
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._build_info = Gauge(
            "mien_build_info",
            "Always 1; the build is in the labels",
            ["service", "version", "revision"],
            registry=self.registry,
        )
        self._build_info.labels(service, version("mien-shared"), os.environ.get(_REVISION) or "unknown").set(1)
        self._ready = Gauge("mien_ready", "1 while /readyz answers 200", registry=self.registry)
        self._loop_lag = Histogram(
            "mien_event_loop_lag_seconds",
            "How much later than asked a timer of the event loop ran",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._tasks = Gauge("mien_tasks", "Tasks of the event loop", registry=self.registry)
        self._redis_failures = Counter(
            "mien_redis_failures_total", "Redis calls that failed and were tried again later", registry=self.registry
        )
        self._redis_up = Gauge("mien_redis_up", "1 while Redis answers", registry=self.registry)
        self._redis_reconnects = Counter(
            "mien_redis_reconnects_total", "Times Redis answered again after it had failed", registry=self.registry
        )
        self._redis_round_trip = Histogram(
            "mien_redis_round_trip_seconds",
            "A PING's way to Redis and back",
            buckets=_ROUND_TRIP_BUCKETS_S,
            registry=self.registry,
        )
        self._channel_lag = Histogram(
            "mien_channel_lag_seconds",
            "Age of what a channel brings: motion since the gateway took it in, video since it went to the encoder",
            ["channel"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.redis_is_up = False
        self._redis_has_answered = False

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Readiness is asked for whenever someone looks."""
        self._ready.set_function(is_ready)

    def redis_failed(self) -> None:
        self.redis_is_up = False
        self._redis_failures.inc()
        self._redis_up.set(0)

    def redis_answered(self) -> None:
        if self._redis_has_answered and not self.redis_is_up:
            self._redis_reconnects.inc()
        self.redis_is_up = self._redis_has_answered = True
        self._redis_up.set(1)

    def redis_round_trip(self, seconds: float) -> None:
        self._redis_round_trip.observe(seconds)

    def channel_lag(self, channel: Literal["motion", "video"], seconds: float) -> None:
        """Both ends may be different machines: a clock that is behind reads as no lag."""
        self._channel_lag.labels(channel).observe(max(0.0, seconds))

    async def watch_event_loop(self, clock: Clock) -> None:
        """Measure the event loop's lag, and how much it has to do, until cancelled."""
        while True:
            self._tasks.set(len(asyncio.all_tasks()))
            before_s = clock.monotonic_s()
            await asyncio.sleep(_LAG_PROBE_INTERVAL_S)
            self._loop_lag.observe(max(0.0, clock.monotonic_s() - before_s - _LAG_PROBE_INTERVAL_S))

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
