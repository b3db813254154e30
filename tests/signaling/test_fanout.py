from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.bus.messages import EncodedFrame, KeyframeReason
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling.fanout import MAX_QUEUED_FRAMES, RUN_SILENCE_S, Fanout, PacketisedFrame, RunFence, ViewerQueue
from mien_signaling.rtp_h264 import NotAnnexB

TICK = VIDEO_CLOCK_HZ // 30


def frame(index: int, *, is_idr: bool = False, run: str = "run", pts_90k: int | None = None) -> EncodedFrame:
    pts = index * TICK if pts_90k is None else pts_90k
    return EncodedFrame(run, index, pts, is_idr, b"\x00\x00\x01\x65x" if is_idr else b"\x00\x00\x01\x41x")


def drain(queue: ViewerQueue) -> list[PacketisedFrame]:
    frames = []
    while (popped := queue.pop()) is not None:
        frames.append(popped)
    return frames


def watched() -> tuple[Fanout, ViewerQueue]:
    fanout, queue = Fanout(), ViewerQueue()
    fanout.add(queue)
    return fanout, queue


def test_a_late_joiner_starts_on_an_idr() -> None:
    fanout, early = watched()
    fanout.push(frame(0, is_idr=True))
    late = ViewerQueue()
    fanout.add(late)
    report = fanout.push(frame(1))
    assert (report.queued, report.dropped_waiting) == (1, 1)
    fanout.push(frame(2, is_idr=True))
    assert [len(drain(early)), len(drain(late))] == [3, 1]


def test_all_viewers_get_the_same_payloads_made_once() -> None:
    fanout, first = watched()
    second = ViewerQueue()
    fanout.add(second)
    fanout.push(frame(0, is_idr=True))
    one, other = first.pop(), second.pop()
    assert one is not None and one is other


def test_a_viewer_that_stops_pulling_loses_everything_and_resumes_at_an_idr_while_others_go_on() -> None:
    fanout, slow = watched()
    quick = ViewerQueue()
    fanout.add(quick)
    fanout.push(frame(0, is_idr=True))
    reports = []
    for index in range(1, MAX_QUEUED_FRAMES + 1):
        reports.append(fanout.push(frame(index)))
        assert quick.pop() is not None
    assert [report.wants_idr for report in reports[:-1]] == [None] * (MAX_QUEUED_FRAMES - 1)
    assert reports[-1].wants_idr is KeyframeReason.GAP
    assert (reports[-1].queued, reports[-1].dropped_overflow) == (1, MAX_QUEUED_FRAMES + 1)
    assert len(slow) == 0
    fanout.push(frame(MAX_QUEUED_FRAMES + 1))
    fanout.push(frame(MAX_QUEUED_FRAMES + 2, is_idr=True))
    assert [popped.is_idr for popped in drain(slow)] == [True]


def test_a_queue_holds_no_more_than_a_second() -> None:
    fanout, queue = watched()
    fanout.push(frame(0, is_idr=True, pts_90k=0))
    fanout.push(frame(1, pts_90k=VIDEO_CLOCK_HZ))
    assert len(queue) == 2
    assert fanout.push(frame(2, pts_90k=VIDEO_CLOCK_HZ + 1)).dropped_overflow == 3


def test_an_idr_that_finds_a_full_queue_takes_its_place() -> None:
    fanout, queue = watched()
    for index in range(MAX_QUEUED_FRAMES):
        fanout.push(frame(index, is_idr=index == 0))
    report = fanout.push(frame(MAX_QUEUED_FRAMES, is_idr=True))
    assert (report.queued, report.dropped_overflow, report.wants_idr) == (1, MAX_QUEUED_FRAMES, None)
    assert [popped.is_idr for popped in drain(queue)] == [True]


def test_a_gap_upstream_holds_everybody_until_the_next_idr() -> None:
    fanout, queue = watched()
    fanout.push(frame(0, is_idr=True))
    report = fanout.push(frame(2))
    assert report.wants_idr is KeyframeReason.GAP
    assert fanout.push(frame(3)).wants_idr is None
    fanout.push(frame(4, is_idr=True))
    assert [popped.pts_90k for popped in drain(queue)] == [0, 4 * TICK]


def test_another_encoder_takes_over_with_an_idr() -> None:
    fanout, queue = watched()
    fanout.push(frame(7, is_idr=True))
    assert fanout.push(frame(0, is_idr=True, run="other")).wants_idr is None
    assert fanout.push(frame(1, run="other")).queued == 1
    assert len(drain(queue)) == 3


def test_a_frame_that_is_not_annex_b_counts_as_missing() -> None:
    fanout, _ = watched()
    fanout.push(frame(0, is_idr=True))
    with pytest.raises(NotAnnexB):
        fanout.push(EncodedFrame("run", 1, TICK, False, b"\x00\x00\x00\x05avcc"))
    assert fanout.push(frame(2)).wants_idr is KeyframeReason.GAP


def test_a_viewer_that_has_left_gets_nothing() -> None:
    fanout, queue = watched()
    fanout.remove(queue)
    fanout.remove(queue)
    assert fanout.push(frame(0, is_idr=True)).queued == 0
    assert queue.pop() is None


def test_a_queued_frame_wakes_its_sender() -> None:
    woken: list[bool] = []
    fanout = Fanout()
    fanout.add(ViewerQueue(lambda: woken.append(True)))
    fanout.push(frame(0))
    assert not woken
    fanout.push(frame(1, is_idr=True))
    assert woken


def test_late_frames_of_a_run_that_was_left_are_nobodys() -> None:
    fence = RunFence()
    assert fence.admits(frame(7, run="old"), 0.0)
    assert fence.admits(frame(0, is_idr=True, run="new"), 0.1)
    assert not fence.admits(frame(8, run="old"), 0.11)
    assert fence.admits(frame(1, run="new"), 0.13)
    assert not fence.admits(frame(9, is_idr=True, run="old"), 60.0), "also when the new one is silent"
    assert not fence.admits(frame(0, is_idr=True, run="old"), 60.0)
    assert fence.admits(frame(2, run="new"), 60.1)


def test_the_old_run_that_is_met_after_the_new_one_is_not_taken_for_newer() -> None:
    fence = RunFence()
    assert fence.admits(frame(3, run="new"), 0.0), "whoever subscribes in between sees any of the two first"
    for step in range(1, 30):
        assert not fence.admits(frame(900 + step, is_idr=step == 5, run="old"), step / 30)
        assert fence.admits(frame(3 + step, run="new"), step / 30)


def test_a_new_run_whose_beginning_was_lost_is_taken_up_once_the_old_one_is_silent() -> None:
    fence = RunFence()
    assert fence.admits(frame(900, run="old"), 0.0)
    assert not fence.admits(frame(4, run="new"), RUN_SILENCE_S)
    assert fence.admits(frame(5, run="new"), RUN_SILENCE_S + 0.01)
    assert not fence.admits(frame(901, run="old"), RUN_SILENCE_S + 0.02)
    assert fence.admits(frame(902, run="old"), 2 * RUN_SILENCE_S + 0.02), "it may have been the newer one after all"


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.booleans()), max_size=200))
def test_of_runs_that_begin_one_after_another_none_comes_back(comings: list[tuple[str, bool]]) -> None:
    fence = RunFence()
    left: list[str] = []
    shown: str | None = None
    for step, (run, begins) in enumerate(comings):
        admitted = fence.admits(frame(0 if begins else 9, run=run), step / 30)
        assert not (admitted and run in left[-8:])
        if admitted and run != shown:
            if shown is not None and begins:
                left.append(shown)
            shown = run


# What may happen, one after another: a frame comes (an IDR or not, perhaps after one that was lost), or a viewer pulls.
events = st.lists(st.sampled_from(["idr", "frame", "frame", "frame", "lost", "pull"]), max_size=300)


@given(events, st.sampled_from([TICK, VIDEO_CLOCK_HZ // 5]))
def test_memory_is_bounded_and_nothing_undecodable_is_sent(happenings: list[str], tick: int) -> None:
    fanout, queue = watched()
    pushed: list[EncodedFrame] = []
    sent: list[int] = []  # places in `pushed`
    queued = dropped = 0
    index = 0
    for happening in happenings:
        if happening == "pull":
            if (popped := queue.pop()) is not None:
                sent.append(popped.pts_90k // tick)
            continue
        index += 1
        if happening == "lost":
            continue
        pushed.append(frame(index, is_idr=happening == "idr", pts_90k=index * tick))
        report = fanout.push(pushed[-1])
        queued += report.queued
        dropped += report.dropped_overflow + report.dropped_waiting
        assert len(queue) <= MAX_QUEUED_FRAMES
    sent += [popped.pts_90k // tick for popped in drain(queue)]
    by_index = {made.index: made for made in pushed}
    for place, number in enumerate(sent):
        in_order = place > 0 and sent[place - 1] == number - 1
        assert by_index[number].is_idr or in_order
    assert sent == sorted(set(sent))
    assert len(sent) + dropped == len(pushed)
