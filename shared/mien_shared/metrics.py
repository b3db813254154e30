"""What every service measures about itself; each service's own facts stand in its own metrics.py.

Names begin with mien_, units are base units, and no label holds a session, a user or an address.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from mien_shared.clock import Clock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: The latency budget's own steps: one frame at 30 fps is 33 ms, a conversation bears 200 ms.
LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.5)

_LAG_PROBE_INTERVAL_S = 0.5


class ServiceMetrics:
    """One registry a process, so that two services in one test never share a counter."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._build_info = Gauge(
            "mien_build_info", "Always 1; the build is in the labels", ["service", "version"], registry=self.registry
        )
        self._build_info.labels(service, version("mien-shared")).set(1)
        self._loop_lag = Histogram(
            "mien_event_loop_lag_seconds",
            "How much later than asked a timer of the event loop ran",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._redis_failures = Counter(
            "mien_redis_failures_total", "Redis calls that failed and were tried again later", registry=self.registry
        )
        self._redis_up = Gauge("mien_redis_up", "1 while Redis answers", registry=self.registry)

        self.redis_is_up = False

    def redis_failed(self) -> None:
        self.redis_is_up = False
        self._redis_failures.inc()
        self._redis_up.set(0)

    def redis_answered(self) -> None:
        self.redis_is_up = True
        self._redis_up.set(1)

    async def watch_event_loop(self, clock: Clock) -> None:
        """Measure the event loop's lag until cancelled."""
        while True:
            before_s = clock.monotonic_s()
            await asyncio.sleep(_LAG_PROBE_INTERVAL_S)
            self._loop_lag.observe(max(0.0, clock.monotonic_s() - before_s - _LAG_PROBE_INTERVAL_S))

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
