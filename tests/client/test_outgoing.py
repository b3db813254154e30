"""What goes out for what was found: smoothed, judged, numbered, with the time of the picture it shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mien_client.outgoing import SMOOTHING, OutgoingMotion
from mien_encoder.judgement import TimeRanBackwards
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

ROOT = Path(__file__).parents[2]
SOURCE = Keypoints.from_rows(
    json.loads((ROOT / "services/gateway/mien_gateway/bundled/mien.json").read_text())["keypoints"]
)


def speaking(mouth: float) -> Keypoints:
    points = SOURCE.points.copy()
    points[FaceKeypoint.LOWER_LIP, 1] += np.float32(mouth)
    return Keypoints(points, SOURCE.jacobians)


def away() -> Keypoints:
    return Keypoints(SOURCE.points + np.float32(0.5), SOURCE.jacobians)


def mouth_of(packet: MotionPacket) -> float:
    return float(packet.keypoints.points[FaceKeypoint.LOWER_LIP, 1])


def send(motion: OutgoingMotion, found: list[Keypoints | None], start: int = 0) -> list[MotionPacket]:
    """Frames captured at 25 a second, from `start` on."""
    return [motion.packet(face, (start + i) / 25, 40 * (start + i)) for i, face in enumerate(found)]


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_every_picture_makes_a_packet_in_order(smoothing: str) -> None:
    packets = send(OutgoingMotion(SOURCE, smoothing), [None, *[speaking(0.0)] * 5, None, *[speaking(0.0)] * 5])
    assert [packet.sequence for packet in packets] == list(range(12))
    assert packets[0].flags == MotionFlags.DEFAULT_MOTION
    assert packets[1].flags == MotionFlags.NEW_INITIAL_FRAME
    assert packets[-1].flags == MotionFlags.NONE
    assert [MotionPacket.unpack(packet.pack()).capture_ms for packet in packets] == [p.capture_ms for p in packets]


def test_a_smoother_that_delays_says_when_what_it_shows_was() -> None:
    opening = [speaking(0.01 * i) for i in range(20)]
    delayed = send(OutgoingMotion(SOURCE, "savitzky-golay"), list(opening))
    assert [packet.capture_ms for packet in delayed[-3:]] == [40 * i for i in (15, 16, 17)]
    assert mouth_of(delayed[-1]) == pytest.approx(0.17, abs=0.002)
    at_once = send(OutgoingMotion(SOURCE, "none"), list(opening))
    assert [packet.capture_ms for packet in at_once[-3:]] == [40 * i for i in (17, 18, 19)]
    assert mouth_of(at_once[-1]) == pytest.approx(0.19, abs=0.002)


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_times_never_run_back_over_a_face_lost_and_found(smoothing: str) -> None:
    found = [speaking(0.0)] * 10 + [None] * 3 + [speaking(0.1)] * 10
    times_ms = [packet.capture_ms for packet in send(OutgoingMotion(SOURCE, smoothing), found)]
    assert times_ms == sorted(times_ms)


def test_extreme_poses_are_replaced_and_without_judgement_are_sent() -> None:
    found: list[Keypoints | None] = [*[speaking(0.0)] * 10, *[away()] * 50]
    judged, unjudged = OutgoingMotion(SOURCE), OutgoingMotion(SOURCE, judged=False)
    packet, sent = send(judged, found)[-1], send(unjudged, found)[-1]
    assert packet.flags == MotionFlags.DEFAULT_MOTION
    assert np.abs(packet.keypoints.points).max() < 0.05
    assert sent.flags == MotionFlags.NONE
    np.testing.assert_allclose(sent.keypoints.points, 0.5, atol=0.01)


def test_a_face_that_is_not_finite_is_rejected() -> None:
    spoilt = Keypoints(SOURCE.points, SOURCE.jacobians * np.float32(math.nan))
    motion = OutgoingMotion(SOURCE)
    packets = send(motion, [speaking(0.0), spoilt, *[speaking(0.0)] * 3])
    assert packets[1].flags == MotionFlags.DEFAULT_MOTION
    assert all(np.isfinite(packet.keypoints.rows()).all() for packet in packets)
    assert "4 frames with the speaker's motion; 1 rejected" in motion.account()


def test_accounts_for_every_frame() -> None:
    motion = OutgoingMotion(SOURCE, "none")
    send(motion, [None, None, *[speaking(0.0)] * 5, *[away()] * 3])
    assert motion.account() == (
        "5 frames with the speaker's motion; 3 rejected and 2 without a face, replaced by default motion; "
        "1 initial frames"
    )


def test_a_clock_that_runs_back_is_refused() -> None:
    motion = OutgoingMotion(SOURCE)
    send(motion, [speaking(0.0)], start=10)
    with pytest.raises(TimeRanBackwards):
        send(motion, [speaking(0.0)], start=5)
