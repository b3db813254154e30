"""The gateway's metrics: one method for each fact. Every label has a fixed set of values."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from mien_shared.bus.channels import DropReason
from mien_shared.http.problems import Code
from mien_shared.metrics import ServiceMetrics
from mien_shared.wire.packet_filter import PacketVerdict

#: Decoding a phone's picture takes about 0.3 s, the first one twice that. The last bucket is the default deadline.
_PROCESSING_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
# rate() does not see a counter's first increase unless the counter was exported at zero before. So every series that
# alerts query is created at the start.
_SESSION_RESULTS = (
    "created", Code.FULL, Code.NO_GENERATOR, Code.REDIS_UNAVAILABLE, Code.AVATAR_STORE_UNAVAILABLE
)  # fmt: skip
_UPLOAD_RESULTS = ("created", Code.UPLOADS_BUSY, Code.PROCESSING_FAILED, Code.AVATAR_STORE_UNAVAILABLE)
_REFUSALS = tuple(code for code in Code if code.status in {401, 403, 429} and code is not Code.FOREIGN_ORIGIN)
_WEBHOOK_RESULTS = ("delivered", "retried", "gave_up", "dropped")
_ROOM_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, 4401, 4403, 4408, 4409, 4410, 4411})
_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1008, 1009, 1011, 1012, 4401, 4408, 4409, 4410})


class GatewayMetrics(ServiceMetrics):
    """The gateway's metrics, in addition to those of every service."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self._packets = Counter(
            "mien_uplink_packets_total",
            "Motion packets received on uplinks, by result",
            ["result"],
            registry=self.registry,
        )
        self._by_verdict = {verdict: self._packets.labels(verdict) for verdict in PacketVerdict}
        self._uplinks = Gauge("mien_uplinks", "Uplinks that are open on this gateway", registry=self.registry)
        self._closed = Counter(
            "mien_uplink_closed_total",
            "Closed uplinks, by WebSocket close code (4408: did not read)",
            ["code"],
            registry=self.registry,
        )
        self._forward_drops = Counter(
            "mien_motion_forward_dropped_total",
            "Accepted motion packets that were dropped before they reached a generator's inbox, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._sessions = Counter(
            "mien_session_requests_total", "Requests to create a session, by result", ["result"], registry=self.registry
        )
        self._uploads = Counter(
            "mien_avatar_uploads_total", "Avatar uploads, by result", ["result"], registry=self.registry
        )
        self._refused = Counter(
            "mien_requests_refused_total",
            "Requests rejected by authorisation or rate limit, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._processing = Histogram(
            "mien_avatar_processing_seconds",
            "Time to make an avatar from uploaded bytes or to refuse them, with the wait for the worker",
            buckets=_PROCESSING_BUCKETS_S,
            registry=self.registry,
        )

        self._room_connections = Gauge(
            "mien_room_connections",
            "Participants whose events connection is open on this gateway",
            registry=self.registry,
        )
        self._room_closed = Counter(
            "mien_room_connections_closed_total",
            "Closed connections to the events of rooms, by WebSocket close code (4408: did not read)",
            ["code"],
            registry=self.registry,
        )
        self._room_messages = Counter(
            "mien_room_messages_total",
            "Messages from participants on their events connections, by result",
            ["result"],
            registry=self.registry,
        )
        self._room_joins = Counter(
            "mien_room_joins_total", "Requests to let a participant join, by result", ["result"], registry=self.registry
        )
        self._webhooks = Counter(
            "mien_webhooks_total",
            "Attempts to deliver a webhook, and deliveries that were given up or dropped, by result",
            ["result"],
            registry=self.registry,
        )

        for family, labels in (
            (self._room_joins, _SESSION_RESULTS),
            (self._room_messages, ("accepted",)),
            (self._room_closed, tuple(map(str, sorted(_ROOM_CLOSE_CODES)))),
            (self._webhooks, _WEBHOOK_RESULTS),
            (self._forward_drops, tuple(DropReason)),
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

    def forward_dropped(self, reason: DropReason, count: int) -> None:
        self._forward_drops.labels(reason).inc(count)

    def session_requested(self, result: str) -> None:
        """result: "created", or the code of the problem in the answer."""
        self._sessions.labels(result).inc()

    def avatar_uploaded(self, result: str) -> None:
        """result: "created", or the code of the problem in the answer."""
        self._uploads.labels(result).inc()

    def request_refused(self, reason: str) -> None:
        """reason: the code of the problem in the answer."""
        self._refused.labels(reason).inc()

    def avatar_processed(self, seconds: float) -> None:
        self._processing.observe(seconds)

    def room_connection_opened(self) -> None:
        self._room_connections.inc()

    def room_connection_closed(self, code: int) -> None:
        self._room_connections.dec()
        self._room_closed.labels(str(code) if code in _ROOM_CLOSE_CODES else "other").inc()

    def room_message(self, result: str) -> None:
        """result: "accepted", or why it was refused."""
        self._room_messages.labels(result).inc()

    def room_joined(self, result: str) -> None:
        """result: "created", or the code of the problem in the answer."""
        self._room_joins.labels(result).inc()

    def webhook(self, result: str, count: int = 1) -> None:
        self._webhooks.labels(result).inc(count)
