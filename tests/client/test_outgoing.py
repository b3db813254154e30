"""What goes out for what was found: smoothed, judged, numbered, with the time of the picture it shows."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from mien_client.outgoing import SMOOTHING, OutgoingMotion
from mien_encoder.judgement import TimeRanBackwards
from mien_encoder.voice_mouth import HOP_S, VoiceBands
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.reactions import REACTIONS, UnknownReaction
from mien_shared.wire.motion import MotionFlags, MotionPacket

ROOT = Path(__file__).parents[2]
SOURCE = Keypoints.from_rows(
    json.loads((ROOT / "services/gateway/mien_gateway/bundled/mien.json").read_text())["keypoints"]
)

RATE_HZ = 48_000


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


def test_a_camera_that_is_off_leaves_a_face_that_speaks_breathes_and_comes_back_as_one() -> None:
    motion = OutgoingMotion(SOURCE)
    bands = VoiceBands(RATE_HZ)
    times_s = np.arange(3 * RATE_HZ) / RATE_HZ
    syllables = 0.2 * np.sin(2 * np.pi * 1000 * times_s) * (np.sin(2 * np.pi * 2 * times_s) > 0)
    heard = [(number * HOP_S, levels) for number, levels in enumerate(bands.push(syllables))]
    sent: list[MotionPacket] = []
    for frame in range(25 * 5):
        time_s = frame / 25
        while heard and heard[0][0] <= time_s:
            at_s, levels = heard.pop(0)
            motion.hear(levels, at_s)
        # A face, then none for three seconds, then the face again.
        found = speaking(0.02) if frame < 25 or frame >= 100 else None
        sent.append(motion.packet(found, time_s, frame * 40))
    lips = [mouth_of(packet) - float(packet.keypoints.points[FaceKeypoint.UPPER_LIP, 1]) for packet in sent]
    assert max(lips[40:75]) > 0.03, "it speaks"
    assert min(lips[40:75]) < 0.01
    assert max(lips[80:98]) < 0.005, "the voice has ended"
    nose = [float(packet.keypoints.points[FaceKeypoint.NOSE, 1]) for packet in sent[40:98]]
    assert max(nose) - min(nose) > 0.002, "it breathes"
    steps = [
        float(np.abs(one.keypoints.points - other.keypoints.points).max()) for one, other in itertools.pairwise(sent)
    ]
    assert max(steps) < 0.06, "it never jumps"
    assert sent[50].flags & MotionFlags.DEFAULT_MOTION
    assert not sent[-1].flags


def test_a_speaker_with_a_face_is_not_moved_by_the_voice() -> None:
    with_voice, without = OutgoingMotion(SOURCE), OutgoingMotion(SOURCE)
    for frame in range(30):
        with_voice.hear((-20.0, -15.0, -30.0), frame / 25)
        one, other = (motion.packet(speaking(0.03), frame / 25, 0) for motion in (with_voice, without))
        assert one.keypoints == other.keypoints


def test_a_reaction_begins_with_the_next_packet() -> None:
    motion = OutgoingMotion(SOURCE)
    before = send(motion, [speaking(0.0)] * 30)
    motion.react("nod")
    with pytest.raises(UnknownReaction):
        motion.react("wink")
    nodding = send(motion, [speaking(0.0)] * 50, start=30)
    noses = [float(packet.keypoints.points[FaceKeypoint.NOSE, 1]) for packet in (before[-1], *nodding)]
    assert noses[1] == pytest.approx(noses[0], abs=1e-4)
    assert max(noses) > noses[0] + 0.07
    assert noses[-1] == pytest.approx(noses[0], abs=1e-3)
    assert max(abs(one - other) for one, other in itertools.pairwise(noses)) < 0.03


def test_a_packet_can_carry_every_reaction_of_every_face() -> None:
    motion = OutgoingMotion(SOURCE, "none", judged=False)
    far = Keypoints(SOURCE.points + np.float32(3.99), SOURCE.jacobians * np.float32(7.9))
    sent = send(motion, [SOURCE, far])
    for name in REACTIONS:
        motion.react(name)
    sent += send(motion, [far] * 80, start=2)
    for packet in sent:
        MotionPacket.unpack(packet.pack())
