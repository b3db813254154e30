"""How long voice is held back, and which times the reports name: pure, with a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mien_shared.media.clock import to_90k
from mien_shared.media.frame_trace import FrameTrace
from mien_signaling.lipsync import IDLE_S, LONGEST_HOLD_S, PAUSE_S, RECEIVER_VOICE_BUFFER_S, SLEW, LipSync

UNIX_S = 1_700_000_000.0


class Call:
    """A speaker whose clock is wrong by `wrong_s`. motion_s, voice_s: how long after their recording they arrive."""

    def __init__(self, motion_s: float, voice_s: float = 0.03, wrong_s: float = 0.0) -> None:
        self.lips = LipSync()
        self.now_s = 0.0
        self.motion_s, self.voice_s, self.wrong_s = motion_s, voice_s, wrong_s

    def frames(self, count: int = 30, *, stalled: bool = False) -> None:
        for _ in range(count):
            self.now_s += 1 / 30
            unix_s = UNIX_S + self.now_s
            recorded_s = unix_s - self.motion_s + self.wrong_s
            work_us = round((self.motion_s - self.voice_s) * 1e6)
            trace = FrameTrace(round(recorded_s * 1000) & 0xFFFF_FFFF, 0, stalled, work_us, 0, 0, 0)
            self.lips.on_frame(trace, to_90k(unix_s), self.now_s, unix_s)

    def hold(self, after_s: float = 0.02, *, known: bool = True) -> float:
        self.now_s += after_s
        unix_s = UNIX_S + self.now_s
        return self.lips.hold(unix_s - self.voice_s + self.wrong_s if known else None, self.now_s, unix_s)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("wrong_s", [0.0, 3600.0, -86400.0])
@pytest.mark.parametrize(("motion_s", "held_s"), [(0.05, 0.0), (0.15, 0.06), (0.4, 0.31), (2.0, LONGEST_HOLD_S)])
def test_voice_waits_for_what_the_picture_takes_longer(
    motion_s: float, held_s: float, wrong_s: float, known: bool
) -> None:
    call = Call(motion_s, wrong_s=wrong_s)
    call.frames()
    assert call.hold(known=known) == pytest.approx(held_s, abs=0.002)
    assert call.lips.hold_s == pytest.approx(held_s, abs=0.002)


def test_an_idle_picture_holds_nothing() -> None:
    call = Call(0.4)
    assert call.hold() == 0.0
    call.frames(stalled=True)
    assert call.hold() == 0.0
    call.frames()
    assert call.hold(PAUSE_S + 0.1) > 0.3
    call.frames(round((IDLE_S + PAUSE_S) * 30) + 3, stalled=True)
    assert call.hold() == 0.0


def test_the_hold_changes_slowly_while_someone_speaks() -> None:
    call = Call(0.4)
    call.hold()
    held = [0.0]
    for _ in range(30):
        call.frames(1)
        held.append(call.hold())
    assert 0 < max(later - earlier for earlier, later in pairwise(held)) <= SLEW * (0.02 + 1 / 30) + 1e-9
    assert held == sorted(held) and held[-1] < 0.31


def test_after_a_pause_the_hold_changes_at_once() -> None:
    call = Call(0.4)
    call.hold()
    call.frames(3)
    assert call.hold(PAUSE_S + 0.01) == pytest.approx(0.31, abs=0.002)


def test_a_time_that_is_no_wall_clock_is_not_used() -> None:
    call = Call(0.4)
    call.frames()
    since_boot_s, unix_s = 12_345.0, UNIX_S + call.now_s
    assert not call.lips.is_one_clock(since_boot_s, unix_s)
    assert call.lips.is_one_clock(unix_s - 0.03, unix_s)
    assert call.lips.hold(since_boot_s, call.now_s, unix_s) == pytest.approx(0.37 - RECEIVER_VOICE_BUFFER_S, abs=0.002)


def test_the_picture_s_time_of_recording_is_known_after_the_first_motion() -> None:
    call = Call(0.25, wrong_s=7.0)
    assert call.lips.picture_capture_s(0) is None
    assert not call.lips.is_one_clock(UNIX_S, UNIX_S)
    call.frames(2)
    pts_90k = to_90k(UNIX_S + call.now_s)
    assert call.lips.picture_capture_s(pts_90k) == pytest.approx(UNIX_S + call.now_s - 0.25 + 7.0, abs=0.002)


def test_frames_without_a_trace_say_nothing() -> None:
    call = Call(0.25)
    call.lips.on_frame(None, 0, 0.0, UNIX_S)
    assert call.lips.picture_capture_s(0) is None
