"""The landmark tool's tracks: smoothing, resampling, joining, looping, packing."""

from __future__ import annotations

import numpy as np
import pytest

from mien_landmarks.track import (
    Motion,
    TrackError,
    joined,
    keypoints_at,
    motion_of,
    packed,
    relative,
    resampled,
    smoothed,
)
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket
from mien_shared.wire.motion_v1 import PACKET_BYTES


def still(frames: int, x: float = 0.0) -> Motion:
    """`frames` frames of a face at rest with all keypoints shifted by `x` to the right."""
    at_rest = Keypoints.at_rest()
    return motion_of([Keypoints(at_rest.points + np.array([x, 0], np.float32), at_rest.jacobians)] * frames)


def ramp(frames: int, step: float, start: float = 0.0) -> Motion:
    motion = still(frames)
    motion[:, :, 0] += (start + step * np.arange(frames))[:, None]
    return motion


class TestSmoothed:
    def test_steadies_a_face_at_rest(self) -> None:
        noise = np.random.default_rng(4).normal(scale=0.003, size=(90, NUM_KEYPOINTS, 6))
        times_s = [i / 30 for i in range(90)]
        residual = smoothed(noise, times_s)[30:]
        assert residual.std() < 0.6 * noise[30:].std()

    def test_lets_a_blink_through(self) -> None:
        motion = still(30)
        motion[10:14, 2, 5] = 0.1  # four frames closed: 130 ms
        lid = smoothed(motion, [i / 30 for i in range(30)])[:, 2, 5]
        assert lid.min() < 0.2
        assert lid[20] > 0.9


class TestResampled:
    def test_from_25_to_30_fps_follows_the_line(self) -> None:
        times_s = [i / 25 for i in range(26)]
        motion = resampled(ramp(26, 1 / 25), times_s)
        assert len(motion) == 31
        np.testing.assert_allclose(motion[:, 0, 0], np.arange(31) / 30, atol=1e-9)

    def test_bridges_frames_without_a_face(self) -> None:
        motion = resampled(ramp(2, 1.0), [0.0, 0.2])
        np.testing.assert_allclose(motion[:, 0, 0], np.arange(7) / 6, atol=1e-9)

    @pytest.mark.parametrize("times_s", [[0.0], [0.0, 0.0]])
    def test_refuses_times_that_do_not_rise(self, times_s: list[float]) -> None:
        with pytest.raises(TrackError, match="at least two frames, with rising times"):
            resampled(still(len(times_s)), times_s)


class TestJoined:
    def test_join_eases_without_a_jump(self) -> None:
        motion = joined([still(40, 0.0), still(40, 0.2)], 9, loop=False)
        assert len(motion) == 40 + 40 - 9
        x = motion[:, 0, 0]
        assert (np.diff(x) >= 0).all()
        assert x[0] == 0
        assert x[-1] == pytest.approx(0.2)
        assert np.diff(x).max() < 0.2 / 9 * 1.6

    def test_loop_flows_from_the_end_into_the_start(self) -> None:
        motion = joined([ramp(60, 0.01)], 9, loop=True)
        assert len(motion) == 51
        around = np.diff(np.concatenate([motion, motion[:1]]), axis=0)
        # The ends differ by 0.5: easing over nine frames may move at most 1.6 ninths of it per frame.
        assert np.abs(around).max() < 0.51 / 9 * 1.6

    def test_no_easing_is_a_plain_cut(self) -> None:
        motion = joined([still(3, 0.0), still(3, 0.1)], 0, loop=True)
        np.testing.assert_allclose(motion[:, 0, 0], [0, 0, 0, 0.1, 0.1, 0.1], atol=1e-7)

    def test_refuses_a_clip_shorter_than_its_joins(self) -> None:
        with pytest.raises(TrackError, match="a clip to join needs more than 18 frames"):
            joined([still(18), still(40)], 9, loop=False)


class TestPacked:
    def test_is_packets_at_30_fps_from_zero(self) -> None:
        data = packed(ramp(31, 0.01))
        packets = [MotionPacket.unpack(data[i : i + PACKET_BYTES]) for i in range(0, len(data), PACKET_BYTES)]
        assert [packet.sequence for packet in packets] == list(range(31))
        assert [packets[0].capture_ms, packets[1].capture_ms, packets[30].capture_ms] == [0, 33, 1000]
        assert {packet.flags for packet in packets} == {MotionFlags.NONE}
        assert packets[30].keypoints.points[0, 0] == pytest.approx(0.3, abs=1e-3)

    def test_relative_to_a_frame_that_frame_is_at_rest(self) -> None:
        motion = ramp(5, 0.1)
        assert keypoints_at(relative(motion, keypoints_at(motion, 3)), 3) == Keypoints.at_rest()
