"""Recorded motion: a file of packets, played in a loop."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mien_client.speaking import DEMO_TRACK
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack, MotionTrackError


def packets(count: int, interval_ms: int = 40) -> list[MotionPacket]:
    return [MotionPacket(number, number * interval_ms, Keypoints.at_rest()) for number in range(count)]


def write(path: Path, count: int) -> Path:
    path.write_bytes(b"".join(packet.pack() for packet in packets(count)))
    return path


def test_a_track_is_read_as_it_was_written(tmp_path: Path) -> None:
    track = MotionTrack.load(write(tmp_path / "a.motion", 5))
    assert list(track.packets) == packets(5)
    assert track.interval_s == pytest.approx(0.04)


def test_a_loop_goes_on_in_time_and_in_number() -> None:
    looped = list(itertools.islice(MotionTrack(tuple(packets(3))).looped(), 8))
    assert [round(at_s, 3) for at_s, _ in looped] == [0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28]
    assert [packet.sequence for _, packet in looped] == list(range(8))
    assert looped[4][1].keypoints == packets(3)[1].keypoints


def test_sequence_numbers_wrap() -> None:
    looped = MotionTrack(tuple(packets(2))).looped()
    assert next(itertools.islice(looped, 0x1_0001, None))[1].sequence == 1


@pytest.mark.parametrize("size", [0, 1, 127, 300])
def test_a_file_that_is_no_track_says_so(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.motion"
    path.write_bytes(bytes(size))
    with pytest.raises(MotionTrackError, match=rf"^a\.motion has {size} bytes: a motion track is one or more packets"):
        MotionTrack.load(path)


def test_a_damaged_packet_is_named_by_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.motion", 3)
    path.write_bytes(path.read_bytes()[:128] + bytes(128))
    with pytest.raises(MotionTrackError, match=r"^a\.motion, packet 1: motion packet version 0 is not known, only 1$"):
        MotionTrack.load(path)


def test_a_single_packet_is_a_track_without_a_frame_rate(tmp_path: Path) -> None:
    track = MotionTrack.load(write(tmp_path / "a.motion", 1))
    with pytest.raises(MotionTrackError, match=r"^a motion track of one packet has no frame rate$"):
        next(track.looped())


def test_the_demos_speaker_speaks_for_twenty_seconds_at_thirty_frames() -> None:
    track = MotionTrack.load(DEMO_TRACK)
    assert len(track.packets) * track.interval_s >= 20
    assert 1 / track.interval_s == pytest.approx(30, abs=0.1)
    last, first = track.packets[-1].keypoints, track.packets[0].keypoints
    assert abs(last.points - first.points).max() < 0.05, "the loop has no jump at its seam"
