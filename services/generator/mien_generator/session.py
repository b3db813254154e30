"""One session inside the generator: what its avatar gave once, and what changes from frame to frame."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import av
import numpy as np

from mien_generator.face.contract import PreparedFace
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import EncodedPicture, H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.motion.shoulders import hold_shoulders
from mien_generator.motion.speaker import SpeakerMotion, UnusableMotion
from mien_generator.scheduler import FrameTiming, beat_s
from mien_shared.messages import EncodedFrame, KeyframeReason, SessionRecord, SessionStats
from mien_shared.motion import PACKET_BYTES, Keypoints, MotionPacket

_METER_WINDOW_S = 3.0

P = TypeVar("P", bound=PreparedFace)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A motion packet as it reached this generator.

    received_unix_us: when the gateway took it in. arrived_s: when it reached us, monotonic.
    """

    packet: MotionPacket
    received_unix_us: int
    arrived_s: float


@dataclass(frozen=True, slots=True)
class DrivenFace:
    """What stage one decided for one frame.

    driving: keypoints in the avatar's crop. arrival: what moves the face, None while the default motion does.
    """

    driving: Keypoints
    arrival: Arrival | None
    packet: MotionPacket | None

    def waited_s(self, unix_s: float) -> float:
        """How long ago the gateway took in the motion shown, between two machines' clocks; 0 for default motion."""
        return max(0.0, unix_s - self.arrival.received_unix_us / 1e6) if self.arrival else 0.0


class GeneratorSession(Generic[P]):
    """State of one session. `offer` may be called from any thread; all else belongs to the device's owner thread."""

    def __init__(
        self,
        record: SessionRecord,
        source: Keypoints,
        prepared: P,
        compositor: Compositor,
        encoder: H264Encoder,
        keyframes: KeyframePolicy,
        now_s: float,
    ) -> None:
        self.record = record
        self.prepared = prepared
        self.compositor = compositor
        self.encoder = encoder
        self._keyframes = keyframes
        self.meter = Meter(now_s)
        self._source = source
        self._motion = SpeakerMotion(source, now_s)
        self._waiting: Arrival | None = None
        self._waiting_since_s: float | None = None
        self._moving: Arrival | None = None
        self._last_due_s = now_s
        # Another run of an encoder starts on an IDR; viewers know one run from the next by this.
        self._run = secrets.token_hex(4)
        self._index = 0

    @property
    def session_id(self) -> str:
        return self.record.session_id

    @property
    def timing(self) -> FrameTiming:
        return FrameTiming(self._waiting_since_s, self._motion.stalls_at_s, self._last_due_s, self._index)

    def offer(self, arrival: Arrival) -> bool:
        """Put the newest motion up to be drawn; False if it replaced one that never was."""
        replaced, self._waiting = self._waiting, arrival
        if replaced is None:  # whoever is overtaken by newer motion keeps the place in the queue
            self._waiting_since_s = arrival.arrived_s
        self.meter.arrived(arrival.arrived_s)
        return replaced is None

    def take_motion(self, now_s: float, due_s: float) -> DrivenFace:
        """Stage one for this session: the motion to show now. Raises UnusableMotion, having kept the one before."""
        self._last_due_s = beat_s(due_s, now_s)
        self._waiting_since_s = None
        arrival, self._waiting = self._waiting, None
        unusable = None
        if arrival is not None:
            try:
                self._motion.push(arrival.packet, arrival.arrived_s)
                self._moving = arrival
            except UnusableMotion as error:
                unusable = error
        shown = self._motion.at(now_s)
        if unusable is not None:
            raise unusable
        driving = hold_shoulders(self._source, shown.relative.applied_to(self._source))
        return DrivenFace(driving, None if shown.idle else self._moving, shown.packet)

    def encode(self, picture: av.VideoFrame, pts_90k: int, now_s: float) -> EncodedPicture:
        """Stage four for this session: an IDR when one is due."""
        encoded = self.encoder.encode(picture, pts_90k, self._keyframes.is_due(now_s))
        if encoded.is_idr:
            self._keyframes.was_sent(now_s)
        return encoded

    def request_keyframe(self, reason: KeyframeReason) -> None:
        self._keyframes.request(reason)

    def number(self, data: bytes, is_idr: bool, pts_90k: int) -> EncodedFrame:
        """An access unit as the next frame of this session's run."""
        frame = EncodedFrame(self._run, self._index, pts_90k, is_idr, data)
        self._index += 1
        return frame


class Meter:
    """A session's figures over the last seconds. Deques are safe to append to and to copy from different threads."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._frames: deque[tuple[float, int, float | None]] = deque(maxlen=256)
        self._arrivals: deque[float] = deque(maxlen=256)

    def arrived(self, now_s: float) -> None:
        self._arrivals.append(now_s)

    def encoded(self, now_s: float, size_bytes: int, motion_to_packet_s: float | None) -> None:
        self._frames.append((now_s, size_bytes, motion_to_packet_s))

    def stats(self, now_s: float, engine: str, tier: str) -> SessionStats:
        """The figures now."""
        window_s = max(min(_METER_WINDOW_S, now_s - self._since_s), 0.1)  # a young session's is shorter
        since_s = now_s - window_s
        frames = [entry for entry in list(self._frames) if entry[0] >= since_s]
        arrivals = [at_s for at_s in list(self._arrivals) if at_s >= since_s]
        latencies_ms = [latency_s * 1000 for *_, latency_s in frames if latency_s is not None]
        p50, p99 = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (None, None)
        return SessionStats(
            fps=round(len(frames) / window_s, 1),
            bitrate_bps=round(sum(size for _, size, _ in frames) * 8 / window_s),
            uplink_bps=round(len(arrivals) * PACKET_BYTES * 8 / window_s),
            motion_to_packet_ms_p50=None if p50 is None else round(float(p50), 2),
            motion_to_packet_ms_p99=None if p99 is None else round(float(p99), 2),
            engine=engine,
            tier=tier,
            idle=not latencies_ms,
        )
