"""One session: the motion that waits for its turn, and its figures over the last seconds."""

from __future__ import annotations

import numpy as np
import pytest

from mien_generator.engine.session import Arrival, GeneratorSession, Meter, SessionAvatar
from mien_generator.face.warp import WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.specimen import CROP, draw_speaker, face_of
from mien_shared.bus.messages import SessionRecord
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket


def a_session() -> GeneratorSession:
    still = draw_speaker()
    record = SessionRecord(session_id="s", avatar_id="a", created_at_ms=0)
    avatar = SessionAvatar(face_of(still))
    avatar.prepared[0] = WarpGenerator().prepare(avatar.face)
    return GeneratorSession(record, avatar, 0, Compositor(still, CROP), H264Encoder(), KeyframePolicy(), 0.0)


def absolute(sequence: int, x: float, flags: MotionFlags, now_s: float) -> Arrival:
    points = Keypoints.at_rest()
    points.points[:, 0] = x
    return Arrival(MotionPacket(sequence, 0, points, MotionFlags.ABSOLUTE | flags), 128, 0, now_s)


def test_a_new_initial_frame_is_not_lost_to_a_newer_packet() -> None:
    session = a_session()
    assert session.offer(absolute(0, 0.0, MotionFlags.NEW_INITIAL_FRAME, 0.0)) == 0
    session.move(session.begin(0.01, 0.0, 30))
    assert session.offer(absolute(1, 1.0, MotionFlags.NEW_INITIAL_FRAME, 0.03)) == 0
    assert session.offer(absolute(2, 1.05, MotionFlags.NONE, 0.06)) == 0
    assert session.offer(absolute(3, 1.1, MotionFlags.NONE, 0.09)) == 1
    session.move(session.begin(0.1, 0.09, 30))
    eased = session.move(session.begin(0.29, 0.28, 30))  # the uplink has not stalled yet
    shift = eased.driving.points[:, 0] - session.avatar.face.keypoints.points[:, 0]
    np.testing.assert_allclose(shift, 0.1, atol=1e-5, err_msg="relative to the frame of packet 1, not of packet 0")


def test_figures_are_of_the_last_seconds() -> None:
    meter = Meter(0.0)
    for number in range(300):
        at_s = number / 30
        meter.arrived(at_s, 128)
        meter.encoded(at_s, 5000 if at_s < 5 else 1000, 0.010 if at_s < 5 else 0.020)
    stats = meter.stats(10.0, "warp", "warp-384")
    assert stats.fps == pytest.approx(30, abs=0.5)
    assert stats.bitrate_bps == pytest.approx(30 * 1000 * 8, rel=0.02)
    assert stats.uplink_bps == pytest.approx(30 * 128 * 8, rel=0.02)
    assert (stats.motion_to_packet_ms_p50, stats.motion_to_packet_ms_p99) == (20.0, 20.0)
    assert not stats.idle


def test_a_young_session_is_measured_over_its_own_life() -> None:
    meter = Meter(100.0)
    for number in range(30):
        meter.arrived(100.0 + number / 30, 128)
        meter.encoded(100.0 + number / 30, 1000, 0.01)
    assert meter.stats(101.0, "warp", "warp-384").fps == pytest.approx(30, abs=0.1)


def test_default_motion_has_no_latency() -> None:
    meter = Meter(0.0)
    meter.encoded(1.0, 1000, None)
    stats = meter.stats(1.1, "warp", "warp-384")
    assert stats.idle
    assert stats.motion_to_packet_ms_p50 is None
    assert stats.uplink_bps == 0


def test_a_session_without_a_frame_has_zeros() -> None:
    assert Meter(5.0).stats(5.0, "warp", "warp-384").fps == 0


def test_rates_are_of_the_last_second() -> None:
    meter = Meter(0.0)
    for number in range(300):
        meter.arrived(number / 30, 128)
        if number % 2:
            meter.encoded(number / 30, 1000, 0.01)
    arrived_fps, made_fps = meter.rates_fps(299 / 30)
    assert arrived_fps == pytest.approx(30, abs=1)
    assert made_fps == pytest.approx(15, abs=1)
    assert meter.rates_fps(20.0) == (0.0, 0.0)
