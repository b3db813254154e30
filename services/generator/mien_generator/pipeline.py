"""The five stages that make a frame, in this order, for every session that is due.

    motion -> face -> frame -> H.264 -> publish

If a network makes the faces, the device thread runs the first two stages, for many sessions in one run of the device. A
pool thread runs the other stages, and all stages for the last tier, one session at a time. The engine (`engine.py`)
decides which thread does what and when. The pipeline never waits for work, and it keeps no state between two calls,
except in the sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Never

from mien_generator.face.contract import FacePicture, FaceRefused, FaceRequest
from mien_generator.face.ladder import Ladder
from mien_generator.metrics import GeneratorMetrics, Skipped
from mien_generator.motion.speaker import UnusableMotion
from mien_generator.session import Cue, DrawnFace, DrivenFace, GeneratorSession
from mien_generator.specimen import draw_speaker, face_of
from mien_shared.bus.messages import EncodedFrame
from mien_shared.clock import Clock
from mien_shared.media.clock import to_90k
from mien_shared.media.frame_trace import FrameTrace, insert_trace

#: Called with (session id, frame). Must not wait.
Publish = Callable[[str, EncodedFrame], None]
#: A session that is being drawn, and the motion that its face will show.
Driven = tuple[GeneratorSession, DrivenFace]


class Pipeline:
    """Makes frames. Any thread may call it, but no two threads at once for the same session."""

    def __init__(self, ladder: Ladder, clock: Clock, metrics: GeneratorMetrics, publish: Publish) -> None:
        self._ladder = ladder
        self._clock = clock
        self._metrics = metrics
        self._publish = publish
        # Media time starts as Unix time, so that another generator can continue it. From then on it follows the
        # monotonic clock, so that a change of the system clock does not disturb it.
        self._media_origin_s = clock.unix_s() - clock.monotonic_s()

    def motion(self, session: GeneratorSession, cue: Cue) -> DrivenFace | None:
        """Stage one: the motion that the session's face shows now. None if the motion cannot be used."""
        try:
            return session.move(cue)
        except UnusableMotion:
            self._metrics.skipped(Skipped.UNUSABLE)
            return None

    def begin_faces(self, tier: int, driven: Sequence[Driven]) -> FacesUnderWay:
        """Stage two: start the faces of all these sessions in one run of the tier's face generator.

        Only a generator that overlaps batches returns before the faces are done. An error of the face generator is
        raised by `faces`.
        """
        rung, requests = self._ladder.rungs[tier], _requests(tier, driven)
        if rung.on_device:
            self._metrics.batch(len(driven))
        if (device := self._ladder.overlapping(tier)) is None:
            return self._done(tier, driven)
        started_s, started_unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        try:
            ticket = device.submit(requests)
        except Exception as error:  # noqa: BLE001 - raised by `faces`
            return FacesUnderWay(tier, driven, started_s, started_unix_s, partial(_raise, error), is_done=True)
        return FacesUnderWay(tier, driven, started_s, started_unix_s, partial(device.collect, ticket), is_done=False)

    def face_alone(self, tier: int, driven: Driven) -> FacesUnderWay:
        """Stage two for one session, without overlap."""
        return self._done(tier, [driven])

    def _done(self, tier: int, driven: Sequence[Driven]) -> FacesUnderWay:
        started_s, started_unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        pictures: Callable[[], Sequence[FacePicture]]
        try:
            pictures = partial(list, self._ladder.rungs[tier].generator.animate(_requests(tier, driven)))
        except Exception as error:  # noqa: BLE001 - raised by `faces`
            pictures = partial(_raise, error)
        return FacesUnderWay(tier, driven, started_s, started_unix_s, pictures, is_done=True)

    def try_device(self, tier: int) -> None:
        """Make a face of a computed avatar on this tier; raises the device's error if it cannot make that one either.

        A device without memory for another avatar still works.
        """
        generator, avatar = self._ladder.rungs[tier].generator, face_of(draw_speaker())
        try:
            generator.animate([FaceRequest(generator.prepare(avatar), avatar.keypoints)])
        except FaceRefused:
            pass

    def faces(self, under_way: FacesUnderWay) -> list[DrawnFace]:
        """Wait for the faces of a batch that was begun, and return them."""
        pictures, drawn_s = under_way.pictures(), self._clock.monotonic_s()
        face_s = drawn_s - under_way.started_s
        return [
            DrawnFace(motion, picture, under_way.tier, motion.waited_s(under_way.started_unix_s), face_s, drawn_s)
            for (_, motion), picture in zip(under_way.driven, pictures, strict=True)
        ]

    def frame(self, session: GeneratorSession, face: DrawnFace) -> None:
        """Stages three to five: compose, encode, publish."""
        composing_s = self._clock.monotonic_s()
        picture = session.compose(face)
        encoding_s = self._clock.monotonic_s()
        pts_90k = to_90k(self._media_origin_s + encoding_s)
        encoded = session.encode(picture, pts_90k, encoding_s)
        done_s = self._clock.monotonic_s()
        pool_s, compose_s, encode_s = composing_s - face.drawn_s, encoding_s - composing_s, done_s - encoding_s
        times = StageTimes(face.wait_s, face.face_s, pool_s, compose_s, encode_s)
        frame = session.number(insert_trace(encoded.data, _trace(face.motion, times)), encoded.is_idr, pts_90k)
        if not session.gone:
            self._publish(session.session_id, frame)
            self._measure(session, face.motion, frame, times)

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


def _requests(tier: int, driven: Sequence[Driven]) -> list[FaceRequest[Any]]:
    return [FaceRequest(session.avatar.prepared[tier], motion.driving) for session, motion in driven]


def _raise(error: Exception) -> Never:
    raise error


@dataclass(frozen=True, slots=True)
class FacesUnderWay:
    """A batch that a face generator was given. pictures(): waits for the faces. is_done: no wait is needed."""

    tier: int
    driven: Sequence[Driven]
    started_s: float
    started_unix_s: float
    pictures: Callable[[], Sequence[FacePicture]]
    is_done: bool


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
