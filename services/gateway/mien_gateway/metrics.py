"""What the gateway measures: one function a fact, every label from a closed set."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from mien_shared.metrics import ServiceMetrics
from mien_shared.wire.packet_filter import PacketVerdict

#: Decoding a phone's picture takes about 0.3 s, the first one twice that; beyond the deadline nothing is measured.
_PROCESSING_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
# A counter's first increase is invisible to rate() unless it was there at zero before: so all that alerts ask for is.
_DROP_REASONS = ("superseded", "redis")
_SESSION_RESULTS = ("created", "full", "no-generator", "redis-unavailable", "avatar-store-unavailable")
_UPLOAD_RESULTS = ("created", "uploads-busy", "processing-failed", "avatar-store-unavailable")
_REFUSALS = (
    "api-key-missing",
    "api-key-invalid",
    "token-missing",
    "token-invalid",
    "token-not-granted",
    "too-many-requests",
)
_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, 4409, 4410})


class GatewayMetrics(ServiceMetrics):
    """The gateway's own counters beside those of every service."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self._packets = Counter(
            "mien_uplink_packets_total", "Uplink packets by what became of them", ["result"], registry=self.registry
        )
        self._by_verdict = {verdict: self._packets.labels(verdict) for verdict in PacketVerdict}
        self._uplinks = Gauge("mien_uplinks", "Uplinks open on this gateway", registry=self.registry)
        self._closed = Counter(
            "mien_uplink_closed_total", "Uplinks closed, by WebSocket close code", ["code"], registry=self.registry
        )
        self._forward_drops = Counter(
            "mien_motion_forward_dropped_total",
            "Accepted packets that never reached a generator's inbox",
            ["reason"],
            registry=self.registry,
        )
        self._sessions = Counter(
            "mien_session_requests_total", "Requests for a session, by result", ["result"], registry=self.registry
        )
        self._uploads = Counter(
            "mien_avatar_uploads_total", "Avatar uploads, by result", ["result"], registry=self.registry
        )
        self._refused = Counter(
            "mien_requests_refused_total",
            "Calls of those who may not, or not so often",
            ["reason"],
            registry=self.registry,
        )
        self._processing = Histogram(
            "mien_avatar_processing_seconds",
            "From uploaded bytes to still picture and keypoints",
            buckets=_PROCESSING_BUCKETS_S,
            registry=self.registry,
        )

        for family, labels in (
            (self._forward_drops, _DROP_REASONS),
            (self._sessions, _SESSION_RESULTS),
            (self._uploads, _UPLOAD_RESULTS),
            (self._refused, _REFUSALS),
        ):
            for label in labels:
                family.labels(label)

    def packet(self, verdict: PacketVerdict) -> None:
        self._by_verdict[verdict].inc()

    def uplink_opened(self) -> None:
        self._uplinks.inc()

    def uplink_closed(self, code: int) -> None:
        self._uplinks.dec()
        self._closed.labels(str(code) if code in _CLOSE_CODES else "other").inc()

    def forward_dropped(self, reason: str, count: int) -> None:
        self._forward_drops.labels(reason).inc(count)

    def session_requested(self, result: str) -> None:
        """`result`: "created", or the code of the problem that answered."""
        self._sessions.labels(result).inc()

    def avatar_uploaded(self, result: str) -> None:
        """`result`: "created", or the code of the problem that answered."""
        self._uploads.labels(result).inc()

    def request_refused(self, reason: str) -> None:
        """`reason`: the code of the problem that answered."""
        self._refused.labels(reason).inc()

    def avatar_processed(self, seconds: float) -> None:
        self._processing.observe(seconds)
