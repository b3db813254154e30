"""What signaling measures: one function a fact."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from mien_shared.bus.messages import KeyframeReason
from mien_shared.metrics import LATENCY_BUCKETS_S, ServiceMetrics
from mien_signaling.fanout import FanoutReport

_JOIN_BUCKETS_S = (*LATENCY_BUCKETS_S, 5.0, 10.0)
_LOSS_BUCKETS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BITRATE_BUCKETS_BPS = (150e3, 300e3, 500e3, 800e3, 1.2e6, 1.6e6, 2.0e6, 2.5e6)

# A counter's first increase is invisible to rate() unless it was there at zero before.
_FRAME_RESULTS = ("sent", "dropped_overflow", "dropped_waiting")
_GONE_REASONS = ("left", "closed", "failed", "timed_out", "refused", "session_ended", "shutdown")


class SignalingMetrics(ServiceMetrics):
    """The facts of WHEP, of the fan-out and of what viewers report."""

    def __init__(self) -> None:
        super().__init__("signaling")
        self._viewers = Gauge("mien_viewers", "Viewers, by how far they are", ["state"], registry=self.registry)
        self._sessions = Gauge("mien_watched_sessions", "Sessions subscribed to here", registry=self.registry)
        self._requests = Counter(
            "mien_whep_requests_total", "WHEP requests answered", ["method", "status"], registry=self.registry
        )
        self._join = Histogram(
            "mien_join_seconds",
            "From a viewer's POST to its connection",
            buckets=_JOIN_BUCKETS_S,
            registry=self.registry,
        )
        self._first_frame = Histogram(
            "mien_first_frame_seconds",
            "From a viewer's POST to the first frame sent to it",
            buckets=_JOIN_BUCKETS_S,
            registry=self.registry,
        )
        self._viewers_gone = Counter(
            "mien_viewers_gone_total", "Viewers that went, by why", ["reason"], registry=self.registry
        )
        self._frames = Counter(
            "mien_fanout_frames_total",
            "Frames times viewers, by what became of them",
            ["result"],
            registry=self.registry,
        )
        self._bad_frames = Counter(
            "mien_fanout_bad_frames_total", "Frames from a generator that are not Annex-B", registry=self.registry
        )
        self._retired_frames = Counter(
            "mien_fanout_retired_frames_total",
            "Frames of a generator that went on beside the session's next one",
            registry=self.registry,
        )
        self._keyframes = Counter(
            "mien_keyframe_requests_total", "IDR requests sent to generators", ["reason"], registry=self.registry
        )
        self._pli = Counter("mien_viewer_pli_total", "PLI and FIR received from viewers", registry=self.registry)
        self._nack = Counter(
            "mien_viewer_nack_packets_total", "Packets viewers asked for again", registry=self.registry
        )
        self._loss = Histogram(
            "mien_viewer_loss_ratio", "Loss in viewers' receiver reports", buckets=_LOSS_BUCKETS, registry=self.registry
        )
        self._rtt = Histogram(
            "mien_viewer_rtt_seconds", "Round trip to viewers", buckets=LATENCY_BUCKETS_S, registry=self.registry
        )
        self._bitrate = Histogram(
            "mien_bitrate_target_bits_per_second",
            "Targets sent to generators",
            buckets=_BITRATE_BUCKETS_BPS,
            registry=self.registry,
        )
        for family, labels in (
            (self._frames, _FRAME_RESULTS),
            (self._viewers_gone, _GONE_REASONS),
            (self._keyframes, tuple(KeyframeReason)),
        ):
            for label in labels:
                family.labels(label)

    def watch_audience(
        self, connecting: Callable[[], int], connected: Callable[[], int], sessions: Callable[[], int]
    ) -> None:
        """Viewers by state, and watched sessions, are asked for whenever someone looks."""
        self._viewers.labels("connecting").set_function(connecting)
        self._viewers.labels("connected").set_function(connected)
        self._sessions.set_function(sessions)

    def whep_request(self, method: str, status: int) -> None:
        self._requests.labels(method, str(status)).inc()

    def viewer_connected(self, join_s: float) -> None:
        self._join.observe(join_s)

    def first_frame(self, wait_s: float) -> None:
        self._first_frame.observe(wait_s)

    def viewer_gone(self, reason: str) -> None:
        self._viewers_gone.labels(reason).inc()

    def frame_fanned_out(self, report: FanoutReport) -> None:
        """What was dropped on the way into the queues; `frame_sent` counts what comes out of them."""
        self._frames.labels("dropped_overflow").inc(report.dropped_overflow)
        self._frames.labels("dropped_waiting").inc(report.dropped_waiting)

    def frame_sent(self) -> None:
        """A frame was handed to a viewer's sender."""
        self._frames.labels("sent").inc()

    def bad_frame(self) -> None:
        self._bad_frames.inc()

    def retired_frame(self) -> None:
        """A generator that has handed a session over goes on for a moment; nobody is to see that."""
        self._retired_frames.inc()

    def keyframe_requested(self, reason: KeyframeReason) -> None:
        self._keyframes.labels(reason.value).inc()

    def viewer_wants_keyframe(self) -> None:
        self._pli.inc()

    def viewer_nacked(self, packets: int) -> None:
        self._nack.inc(packets)

    def viewer_reported(self, loss: float, rtt_s: float | None) -> None:
        self._loss.observe(loss)
        if rtt_s is not None:
            self._rtt.observe(rtt_s)

    def bitrate_set(self, bitrate_bps: int) -> None:
        self._bitrate.observe(bitrate_bps)
