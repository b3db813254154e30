"""The map of the system: five stages, in this order, for every session that is due.

    motion -> face -> frame -> H.264 -> publish

It runs on the device's owner thread. Faces of all due sessions are made in one run of the device; the rest is done
session by session. Nothing waits in here and nothing is kept between two calls but what belongs to a session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mien_generator.face.contract import FaceGenerator, FacePicture, FaceRequest, PreparedFace
from mien_generator.metrics import GeneratorMetrics
from mien_generator.motion.speaker import UnusableMotion
from mien_generator.session import DrivenFace, GeneratorSession
from mien_shared.clock import Clock, to_90k
from mien_shared.messages import EncodedFrame
from mien_shared.trace import FrameTrace, insert_trace

logger = logging.getLogger(__name__)

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
        # Media time is Unix time, so that it goes on at another generator, but a clock that is set must not bend it.
        self._media_origin_s = clock.unix_s() - clock.monotonic_s()

    def run(self, due: Sequence[tuple[GeneratorSession[P], float]]) -> list[str]:
        """One frame for each (session, when it was due); the ids of sessions whose own part in it failed."""
        started_s, started_unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        driven = [(session, motion) for session, due_s in due if (motion := self._motion(session, started_s, due_s))]
        faces = self.faces.animate([FaceRequest(session.prepared, motion.driving) for session, motion in driven])
        self._metrics.batch(len(driven))
        face_s = self._clock.monotonic_s() - started_s
        failed = []
        for (session, motion), face in zip(driven, faces, strict=True):
            try:
                self._finish(session, motion, face, motion.waited_s(started_unix_s), face_s)
            except Exception:  # a session's boundary: the others' frames are due all the same
                logger.exception("a session's frame failed")
                failed.append(session.session_id)
        return failed

    def _finish(
        self, session: GeneratorSession[P], motion: DrivenFace, face: FacePicture, wait_s: float, face_s: float
    ) -> None:
        """Stages three to five for one session."""
        composing_s = self._clock.monotonic_s()
        picture = session.compositor.compose(face)
        encoding_s = self._clock.monotonic_s()
        pts_90k = to_90k(self._media_origin_s + encoding_s)
        encoded = session.encode(picture, pts_90k, encoding_s)
        times = StageTimes(wait_s, face_s, encoding_s - composing_s, self._clock.monotonic_s() - encoding_s)
        frame = session.number(insert_trace(encoded.data, _trace(motion, times)), encoded.is_idr, pts_90k)
        self._publish(session.session_id, frame)
        self._measure(session, motion, frame, times)

    def _motion(self, session: GeneratorSession[P], now_s: float, due_s: float) -> DrivenFace | None:
        try:
            return session.take_motion(now_s, due_s)
        except UnusableMotion:
            self._metrics.skipped("unusable")
            return None

    def _measure(
        self, session: GeneratorSession[P], motion: DrivenFace, frame: EncodedFrame, times: StageTimes
    ) -> None:
        motion_to_packet_s = None
        if motion.arrival is not None:
            motion_to_packet_s = motion.waited_s(self._clock.unix_s())
            self._metrics.motion_to_packet(motion_to_packet_s)
            self._metrics.stage("wait", times.wait_s)
        self._metrics.stage("face", times.face_s)
        self._metrics.stage("compose", times.compose_s)
        self._metrics.stage("encode", times.encode_s)
        self._metrics.frame(motion.arrival is None, frame.is_idr, len(frame.data))
        session.meter.encoded(self._clock.monotonic_s(), len(frame.data), motion_to_packet_s)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where one frame's time went. wait_s: from the gateway's receipt of the motion to the start of its batch."""

    wait_s: float
    face_s: float
    compose_s: float
    encode_s: float


def _trace(motion: DrivenFace, times: StageTimes) -> FrameTrace:
    """What a receiver may want to know of a frame's life; nothing of it needs trust."""
    return FrameTrace(
        capture_ms=motion.packet.capture_ms if motion.packet else 0,
        sequence=motion.packet.sequence if motion.packet else 0,
        is_stalled=motion.arrival is None,
        uplink_wait_us=round(times.wait_s * 1e6),
        face_us=round(times.face_s * 1e6),
        compose_us=round(times.compose_s * 1e6),
        encode_us=round(times.encode_s * 1e6),
    )
