"""Signaling's metrics of publications to an SFU: one method for each fact."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mien_shared.bus.egress import EgressError
from mien_shared.metrics import LATENCY_BUCKETS_S

_LOSS_BUCKETS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STATES = ("connecting", "connected", "retrying")


class Ended(StrEnum):
    """Why this service no longer publishes a session."""

    SESSION_ENDED = "session_ended"
    WITHDRAWN = "withdrawn"  # an operator wants no egress any more
    TAKEN_OVER = "taken_over"  # another service holds the claim
    SHUTDOWN = "shutdown"


class Deleted(StrEnum):
    """What became of a DELETE at the SFU."""

    DONE = "done"
    FAILED = "failed"


class SfuMetrics:
    """Metrics in the registry of the service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._publications = Gauge(
            "mien_sfu_sessions",
            "Sessions that this process publishes to the SFU, by state",
            ["state"],
            registry=registry,
        )
        self._attempts = Counter(
            "mien_sfu_attempts_total",
            "Attempts to publish a session to the SFU, by result: connected, or why not",
            ["result"],
            registry=registry,
        )
        self._lost = Counter(
            "mien_sfu_lost_total",
            "Connections to the SFU that ended although the session should be published, by reason",
            ["reason"],
            registry=registry,
        )
        self._ended = Counter(
            "mien_sfu_ended_total",
            "Sessions that this process publishes no more, by reason",
            ["reason"],
            registry=registry,
        )
        self._deleted = Counter(
            "mien_sfu_deletes_total", "DELETE requests to the SFU, by result", ["result"], registry=registry
        )
        self._pli = Counter("mien_sfu_pli_total", "PLI and FIR messages received from the SFU", registry=registry)
        self._loss = Histogram(
            "mien_sfu_loss_ratio",
            "Share of packets lost, 0 to 1, from the SFU's receiver reports",
            buckets=_LOSS_BUCKETS,
            registry=registry,
        )
        self._rtt = Histogram(
            "mien_sfu_rtt_seconds",
            "Round-trip time to the SFU, from its receiver reports",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.watch(lambda state: 0)
        for result in ("connected", *EgressError):
            self._attempts.labels(result)
        for family, labels in ((self._lost, tuple(EgressError)), (self._ended, Ended), (self._deleted, Deleted)):
            for label in labels:
                family.labels(label)

    def watch(self, count: Callable[[str], int]) -> None:
        """Read the number of publications in a state from this function at every scrape."""
        for state in STATES:
            self._publications.labels(state).set_function(partial(count, state))

    def connected(self) -> None:
        self._attempts.labels("connected").inc()

    def failed(self, error: EgressError) -> None:
        """Count an attempt that did not lead to a connection."""
        self._attempts.labels(error.value).inc()

    def lost(self, error: EgressError) -> None:
        """Count a connection that ended by itself."""
        self._lost.labels(error.value).inc()

    def ended(self, reason: Ended) -> None:
        self._ended.labels(reason.value).inc()

    def deleted(self, result: Deleted) -> None:
        self._deleted.labels(result.value).inc()

    def wants_keyframe(self) -> None:
        self._pli.inc()

    def reported(self, loss: float, rtt_s: float | None) -> None:
        self._loss.observe(loss)
        if rtt_s is not None:
            self._rtt.observe(rtt_s)
