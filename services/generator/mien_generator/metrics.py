"""The generator's metrics. One method per fact."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from mien_shared.bus.messages import KeyframeReason
from mien_shared.metrics import LATENCY_BUCKETS_S, ServiceMetrics
from mien_shared.wire.motion import MotionPacketError

#: Buckets for the time from the order to start a session until its first frame is due.
_START_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
_STAGE_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.066, 0.1, 0.2, 0.5)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

# Each of these label values is created at zero: rate() misses a counter's first increase if the series was not there.
_MOTIONS = ("speaker", "default")
_STAGES = ("wait", "face", "pool", "compose", "encode")
_DIRECTIONS = ("down", "up")
_THREADS = ("device", "pool")
_ROLES = ("worker", "device")
_FALLBACKS = ("weights", "runtime")


class Skipped(StrEnum):
    """Why no frame was made for a motion packet. Packets that cannot be read have the reason of their error."""

    SUPERSEDED = "superseded"  # newer motion of its session came first
    UNUSABLE = "unusable"
    UNKNOWN_SESSION = "unknown_session"


_UNREADABLE = {MotionPacketError.reason, *(kind.reason for kind in MotionPacketError.__subclasses__())}


class StartResult(StrEnum):
    """What became of a start of a session."""

    PLACED = "placed"  # by the order of a gateway, or of a generator that drains
    CLAIMED = "claimed"  # no generator held the session
    FAILED = "failed"
    REFUSED = "refused"  # the session had ended, or another generator held it, or no place was free


class EndedBy(StrEnum):
    """Why this generator stopped generating a session."""

    STOPPED = "stopped"  # the session has ended
    TAKEN_OVER = "taken_over"  # another generator holds it
    DRAINED = "drained"  # it was handed over
    EXPIRED = "expired"  # nothing keeps it alive
    FAILED = "failed"  # its frames failed
    SHUTDOWN = "shutdown"  # this generator ends
    ENGINE_FAILED = "engine_failed"  # the device or a thread failed; another generator claims the session


class GeneratorMetrics(ServiceMetrics):
    """The metrics that only the generator has, in addition to those of every service."""

    def __init__(self) -> None:
        super().__init__("generator")
        registry = self.registry
        self._sessions = Gauge(
            "mien_generator_sessions", "Number of sessions that this generator generates", registry=registry
        )
        self._tiers = Gauge(
            "mien_tier_sessions",
            "Number of sessions on each tier. A tier's name has the face backend and the face size in pixels",
            ["tier"],
            registry=registry,
        )
        self._tier_names: tuple[str, ...] = ()
        self._steps = Counter(
            "mien_tier_steps_total",
            "Steps of sessions to another tier, by direction: down or up",
            ["direction"],
            registry=registry,
        )
        self._busy = Counter(
            "mien_busy_seconds_total",
            "Time for which threads were busy: the device thread with faces, the pool threads with frames",
            ["thread"],
            registry=registry,
        )
        self._pool = Gauge(
            "mien_pool_threads", "Number of threads in the pool that composes and encodes frames", registry=registry
        )
        self._workers = Gauge(
            "mien_generator_workers", "Number of worker processes of this generator", registry=registry
        )
        self._deaths = Counter(
            "mien_generator_process_deaths_total",
            "Worker and device processes that died and were started again, by role",
            ["role"],
            registry=registry,
        )
        self._device_load = Gauge(
            "mien_device_load_ratio",
            "Time that faces take on the device now, divided by the time that was measured at the start",
            registry=registry,
        )
        self._info = Gauge(
            "mien_generator_info",
            "Always 1. The labels name the best tier and the H.264 encoder",
            ["backend", "h264_encoder"],
            registry=registry,
        )
        self._fallback = Gauge(
            "mien_backend_fallback_info",
            "1 for the reason why MIEN_FACE_BACKEND=auto does not run the network",
            ["reason"],
            registry=registry,
        )
        self._capacity = Gauge(
            "mien_generator_capacity_sessions", "Number of sessions that this generator accepts", registry=registry
        )
        self._frames = Counter(
            "mien_generated_frames_total",
            "Encoded frames, by the motion that they show: speaker or default",
            ["motion"],
            registry=registry,
        )
        self._skipped = Counter(
            "mien_skipped_motion_total",
            "Motion packets for which no frame was made, by reason",
            ["reason"],
            registry=registry,
        )
        self._batch = Histogram(
            "mien_batch_size_sessions",
            "Number of faces in one run of the device",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self._batches_failed = Counter(
            "mien_device_batches_failed_total",
            "Runs of the device that failed; their faces were made again one by one",
            registry=registry,
        )
        self._stage = Histogram(
            "mien_stage_seconds",
            "Time of each stage of a frame: wait (from the gateway's receipt of the motion to the start of the batch),"
            " face (the whole batch), pool (from the face to a free pool thread), compose, encode",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._motion_to_packet = Histogram(
            "mien_motion_to_packet_seconds",
            "Time from the gateway's receipt of a motion packet to the encoded frame",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._encoded = Counter("mien_encoded_bytes_total", "Bytes of H.264 that were encoded", registry=registry)
        self._idrs = Counter("mien_idr_frames_total", "IDR frames that were encoded", registry=registry)
        self._idr_requests = Counter(
            "mien_idr_requests_total", "Requests for an IDR frame, by reason", ["reason"], registry=registry
        )
        self._lost = Counter(
            "mien_lost_frames_total",
            "Encoded frames that were dropped because Redis failed or was too slow",
            registry=registry,
        )
        self._starts = Counter(
            "mien_generator_sessions_started_total",
            "Sessions that a gateway placed here (placed), that this generator took over (claimed), that failed to"
            " start (failed), or whose order was out of date or found no free place (refused)",
            ["result"],
            registry=registry,
        )
        self._start = Histogram(
            "mien_session_start_seconds",
            "Time from the order to start a session until its first frame is due",
            buckets=_START_BUCKETS_S,
            registry=registry,
        )
        self._ended = Counter(
            "mien_generator_sessions_ended_total",
            "Sessions that this generator stopped generating, by reason",
            ["reason"],
            registry=registry,
        )
        for family, labels in (
            (self._frames, _MOTIONS),
            (self._skipped, (*Skipped, *_UNREADABLE)),
            (self._stage, _STAGES),
            (self._steps, _DIRECTIONS),
            (self._busy, _THREADS),
            (self._deaths, _ROLES),
            (self._fallback, _FALLBACKS),
            (self._idr_requests, tuple(KeyframeReason)),
            (self._starts, tuple(StartResult)),
            (self._ended, tuple(EndedBy)),
        ):
            for label in labels:
                family.labels(label)

    def generates_with(self, tiers: Sequence[str], h264_encoder: str) -> None:
        """tiers: the names of the ladder's tiers, the best first."""
        self._info.labels(tiers[0], h264_encoder).set(1)
        self._tier_names = tuple(tiers)
        self.sessions([])

    def fell_back(self, reason: Literal["weights", "runtime"]) -> None:
        """`auto` does not run the network. reason: see face.build.Fallback."""
        self._fallback.labels(reason).set(1)

    def sessions(self, tiers: Sequence[str]) -> None:
        """tiers: for each session of this generator, the name of its tier."""
        self._sessions.set(len(tiers))
        for name in self._tier_names:
            self._tiers.labels(name).set(tiers.count(name))

    def stepped(self, direction: Literal["down", "up"]) -> None:
        self._steps.labels(direction).inc()

    def worked(self, thread: Literal["device", "pool"], seconds: float) -> None:
        self._busy.labels(thread).inc(seconds)

    def device_load(self, factor: float) -> None:
        """See cost.Load."""
        self._device_load.set(factor)

    def workers(self, count: int) -> None:
        self._workers.set(count)

    def process_died(self, role: Literal["worker", "device"]) -> None:
        self._deaths.labels(role).inc()

    def pool(self, threads: int) -> None:
        self._pool.set(threads)

    def capacity(self, count: int) -> None:
        self._capacity.set(count)

    def frame(self, idle: bool, is_idr: bool, size_bytes: int) -> None:
        self._frames.labels("default" if idle else "speaker").inc()
        self._idrs.inc(is_idr)
        self._encoded.inc(size_bytes)

    def skipped(self, reason: Skipped, count: int = 1) -> None:
        self._skipped.labels(reason).inc(count)

    def unreadable(self, error: MotionPacketError) -> None:
        self._skipped.labels(error.reason).inc()

    def batch(self, size: int) -> None:
        self._batch.observe(size)

    def batch_failed(self) -> None:
        self._batches_failed.inc()

    def stage(self, name: Literal["wait", "face", "pool", "compose", "encode"], seconds: float) -> None:
        self._stage.labels(name).observe(seconds)

    def motion_to_packet(self, seconds: float) -> None:
        self._motion_to_packet.observe(seconds)

    def idr_requested(self, reason: KeyframeReason) -> None:
        self._idr_requests.labels(reason.value).inc()

    def lost(self, frames: int) -> None:
        self._lost.inc(frames)

    def session_started(self, claimed: bool, seconds: float) -> None:
        """claimed: no generator held the session, so this one took it over. Otherwise a gateway placed it here."""
        self._starts.labels(StartResult.CLAIMED if claimed else StartResult.PLACED).inc()
        self._start.observe(seconds)

    def session_not_started(self, result: StartResult) -> None:
        """result: FAILED or REFUSED."""
        self._starts.labels(result).inc()

    def session_ended(self, reason: EndedBy) -> None:
        self._ended.labels(reason).inc()
