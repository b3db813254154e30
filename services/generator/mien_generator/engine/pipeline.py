"""The five stages that make a frame, in this order, for every session that is due.

    motion -> face -> frame -> H.264 -> publish

A thread of the pool runs them, one frame at a time. If the device makes the face, the thread does other work meanwhile
(`turn.py`). The board decides which thread does what and when. The pipeline never waits for work, and it keeps no
state between two frames, except in the sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mien_generator.device.contract import Made
from mien_generator.engine.session import Cue, DrawnFace, DrivenFace, GeneratorSession
from mien_generator.engine.turn import FaceWanted
from mien_generator.face.contract import FaceRequest
from mien_generator.face.ladder import Tiers
from mien_generator.metrics import GeneratorMetrics, Skipped
from mien_generator.motion.speaker import UnusableMotion
from mien_shared.bus.messages import EncodedFrame
from mien_shared.clock import Clock
from mien_shared.media.clock import to_90k
from mien_shared.media.frame_trace import FrameTrace, insert_trace

#: Called with (session id, frame). Must not wait.
Publish = Callable[[str, EncodedFrame], None]


class Pipeline:
    """Makes frames. Any thread may call it, but no two threads at once for the same session."""

    def __init__(self, tiers: Tiers, clock: Clock, metrics: GeneratorMetrics, publish: Publish) -> None:
        self._tiers = tiers
        self._clock = clock
        self._metrics = metrics
        self._publish = publish
        # Media time starts as Unix time, so that another generator can continue it. From then on it follows the
        # monotonic clock, so that a change of the system clock does not disturb it.
        self._media_origin_s = clock.unix_s() - clock.monotonic_s()

    async def frame(self, session: GeneratorSession, cue: Cue) -> None:
        """Make one frame of a session. Awaits a face of the device at most once, and nothing else."""
        try:
            motion = session.move(cue)
        except UnusableMotion:
            self._metrics.skipped(Skipped.UNUSABLE)
            return
        face = await self._face(motion, cue)
        composing_s = self._clock.monotonic_s()
        picture = session.compose(face)
        encoding_s = self._clock.monotonic_s()
        pts_90k = to_90k(self._media_origin_s + encoding_s)
        encoded = session.encode(picture, pts_90k, encoding_s)
        times = StageTimes.of(face, composing_s, encoding_s, self._clock.monotonic_s())
        frame = session.number(insert_trace(encoded.data, _trace(motion, times)), encoded.is_idr, pts_90k)
        if not session.gone:
            self._publish(session.session_id, frame)
            self._measure(session, motion, frame, times)

    async def _face(self, motion: DrivenFace, cue: Cue) -> DrawnFace:
        """Stage two: the session's face, from the device or, on the last tier, made by this thread."""
        if cue.tier < self._tiers.last:
            made = await FaceWanted(cue.tier, cue.prepared, motion.driving)
        else:
            started_s = self._clock.monotonic_s()
            (picture,) = self._tiers.last_generator.animate([FaceRequest(cue.prepared, motion.driving)])
            made = Made(picture, started_s, self._clock.monotonic_s())
        age_s = self._clock.monotonic_s() - made.started_s
        wait_s = motion.waited_s(self._clock.unix_s() - age_s)
        return DrawnFace(motion, made.picture, cue.tier, wait_s, made.done_s - made.started_s, made.done_s)

    def _measure(self, session: GeneratorSession, motion: DrivenFace, frame: EncodedFrame, times: StageTimes) -> None:
        motion_to_packet_s = None
        if motion.arrival is not None:
            motion_to_packet_s = motion.waited_s(self._clock.unix_s())
            self._metrics.motion_to_packet(motion_to_packet_s)
            self._metrics.stage("wait", times.wait_s)
        self._metrics.stage("face", times.face_s)
        self._metrics.stage("pool", times.pool_s)
        self._metrics.stage("compose", times.compose_s)
        self._metrics.stage("encode", times.encode_s)
        self._metrics.frame(motion.arrival is None, frame.is_idr, len(frame.data))
        session.meter.encoded(self._clock.monotonic_s(), len(frame.data), motion_to_packet_s)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long each stage of one frame took.

    wait_s: from the gateway's receipt of the motion to the start of its batch. pool_s: from the finished face to a free
    pool thread.
    """

    wait_s: float
    face_s: float
    pool_s: float
    compose_s: float
    encode_s: float

    @classmethod
    def of(cls, face: DrawnFace, composing_s: float, encoding_s: float, done_s: float) -> StageTimes:
        """From the monotonic times at which composition and encoding began, and at which the frame was done."""
        return cls(face.wait_s, face.face_s, composing_s - face.drawn_s, encoding_s - composing_s, done_s - encoding_s)


def _trace(motion: DrivenFace, times: StageTimes) -> FrameTrace:
    """The frame's trace, for receivers that measure latency. No decision depends on it.

    `uplink_wait_us` is the sum of both waits, `wait_s` and `pool_s`.
    """
    return FrameTrace(
        capture_ms=motion.packet.capture_ms if motion.packet else 0,
        sequence=motion.packet.sequence if motion.packet else 0,
        is_stalled=motion.arrival is None,
        uplink_wait_us=round((times.wait_s + times.pool_s) * 1e6),
        face_us=round(times.face_s * 1e6),
        compose_us=round(times.compose_s * 1e6),
        encode_us=round(times.encode_s * 1e6),
    )
