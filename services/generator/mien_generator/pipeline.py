"""The map of the system: five stages, in this order, for every session that is due.

    motion -> face -> frame -> H.264 -> publish

It runs on the device's owner thread. Faces of all due sessions are made in one run of the device; the rest is done
session by session. Nothing waits in here and nothing is kept between two calls but what belongs to a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mien_generator.face.contract import FaceGenerator, FaceRequest, PreparedFace
from mien_generator.metrics import GeneratorMetrics
from mien_generator.motion.speaker import UnusableMotion
from mien_generator.session import DrivenFace, GeneratorSession
from mien_shared.clock import Clock, to_90k
from mien_shared.messages import EncodedFrame
from mien_shared.trace import FrameTrace, insert_trace

P = TypeVar("P", bound=PreparedFace)

#: Takes (session id, frame); must not wait.
Publish = Callable[[str, EncodedFrame], None]


class Pipeline(Generic[P]):
    """Makes the next frame of every session that is due."""

    def __init__(self, faces: FaceGenerator[P], clock: Clock, metrics: GeneratorMetrics, publish: Publish) -> None:
        self.faces = faces
        self._clock = clock
        self._metrics = metrics
        self._publish = publish

    def run(self, due: Sequence[tuple[GeneratorSession[P], float]]) -> None:
        """One frame for each (session, when it was due)."""
        started_s = self._clock.monotonic_s()
        driven = [(session, motion) for session, due_s in due if (motion := self._motion(session, started_s, due_s))]
        faces = self.faces.animate([FaceRequest(session.prepared, motion.driving) for session, motion in driven])
        face_s = self._clock.monotonic_s() - started_s
        self._metrics.batch(len(driven))
        self._metrics.stage("face", face_s)
        for (session, motion), face in zip(driven, faces, strict=True):
            composing_s = self._clock.monotonic_s()
            picture = session.compositor.compose(face)
            encoding_s = self._clock.monotonic_s()
            unix_s = self._clock.unix_s()
            pts_90k = to_90k(unix_s)
            encoded = session.encoder.encode(picture, pts_90k, session.keyframes.is_due(encoding_s))
            encoded_s = self._clock.monotonic_s()
            if encoded.is_idr:
                session.keyframes.was_sent(encoded_s)
            wait_s = _wait_s(motion, unix_s - (encoding_s - composing_s) - face_s)
            trace = _trace(motion, wait_s, face_s, encoding_s - composing_s, encoded_s - encoding_s)
            frame = session.number(insert_trace(encoded.data, trace), encoded.is_idr, pts_90k)
            self._publish(session.session_id, frame)
            self._measure(session, motion, frame, wait_s, encoding_s - composing_s, encoded_s - encoding_s)

    def _motion(self, session: GeneratorSession[P], now_s: float, due_s: float) -> DrivenFace | None:
        try:
            return session.take_motion(now_s, due_s)
        except UnusableMotion:
            self._metrics.skipped("unusable")
            return None

    def _measure(
        self,
        session: GeneratorSession[P],
        motion: DrivenFace,
        frame: EncodedFrame,
        wait_s: float,
        compose_s: float,
        encode_s: float,
    ) -> None:
        motion_to_packet_s = None
        if motion.arrival is not None:
            motion_to_packet_s = max(0.0, self._clock.unix_s() - motion.arrival.received_unix_us / 1e6)
            self._metrics.motion_to_packet(motion_to_packet_s)
            self._metrics.stage("wait", wait_s)
        session.meter.encoded(self._clock.monotonic_s(), len(frame.data), motion_to_packet_s)
        self._metrics.stage("compose", compose_s)
        self._metrics.stage("encode", encode_s)
        self._metrics.frame(motion.arrival is None, frame.is_idr, len(frame.data))


def _wait_s(motion: DrivenFace, worked_from_unix_s: float) -> float:
    """A motion's way to us and its waiting, also for others of its batch; 0 for a frame that no motion moves."""
    if motion.arrival is None:
        return 0.0
    return max(0.0, worked_from_unix_s - motion.arrival.received_unix_us / 1e6)


def _trace(motion: DrivenFace, wait_s: float, face_s: float, compose_s: float, encode_s: float) -> FrameTrace:
    """What a receiver may want to know of a frame's life; nothing of it needs trust."""
    return FrameTrace(
        capture_ms=motion.packet.capture_ms if motion.packet else 0,
        sequence=motion.packet.sequence if motion.packet else 0,
        is_stalled=motion.arrival is None,
        uplink_wait_us=round(wait_s * 1e6),
        face_us=round(face_s * 1e6),
        compose_us=round(compose_s * 1e6),
        encode_us=round(encode_s * 1e6),
    )
