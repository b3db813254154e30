from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.bus.messages import KeyframeReason
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling.feedback import (
    BITRATE_INTERVAL_S,
    GROWTH_PER_S,
    KEYFRAME_INTERVAL_S,
    KEYFRAME_RETRY_S,
    UNTRIED,
    BitrateLimits,
    KeyframeRequests,
    SentRate,
    SessionBitrate,
    ViewerBitrate,
    session_target_bps,
)

SENT = 1_200_000.0
LIMITS = BitrateLimits(150_000, 1_200_000, 2_500_000)


def test_many_wishes_are_one_request_named_by_the_first() -> None:
    requests = KeyframeRequests()
    requests.want(KeyframeReason.JOIN)
    requests.want(KeyframeReason.PLI)
    assert requests.pending is KeyframeReason.JOIN
    assert requests.due_in_s(10.0) <= 0
    requests.sent(10.0)
    requests.answered()
    assert requests.pending is None


def test_the_next_request_keeps_its_distance() -> None:
    requests = KeyframeRequests()
    requests.want(KeyframeReason.JOIN)
    requests.sent(10.0)
    requests.answered()
    requests.want(KeyframeReason.PLI)
    assert requests.due_in_s(10.1) == pytest.approx(KEYFRAME_INTERVAL_S - 0.1)
    assert requests.due_in_s(10.0 + KEYFRAME_INTERVAL_S) <= 1e-9


def test_a_request_without_an_answer_is_repeated() -> None:
    requests = KeyframeRequests()
    requests.want(KeyframeReason.GAP)
    requests.sent(10.0)
    requests.want(KeyframeReason.PLI)
    assert requests.pending is KeyframeReason.GAP
    assert requests.due_in_s(10.0) == pytest.approx(KEYFRAME_RETRY_S)


def test_high_loss_lowers_by_half_of_it_and_low_loss_raises_by_time() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.2, SENT, 0.0)
    assert viewer.target_bps == 1_080_000
    viewer.on_loss(0.0, SENT, 1.0)
    assert viewer.target_bps == round(1_080_000 * GROWTH_PER_S)
    viewer.on_loss(0.01, SENT, 1.5)
    assert viewer.target_bps == round(1_080_000 * GROWTH_PER_S**1.5)


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.10])
def test_some_loss_changes_nothing(loss: float) -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(loss, SENT, 0.0)
    viewer.on_loss(loss, SENT, 1.0)
    assert viewer.target_bps == LIMITS.start_bps


def test_a_long_silence_raises_no_more_than_a_short_one() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.0, SENT, 0.0)
    viewer.on_loss(0.0, SENT, 100.0)
    assert viewer.target_bps == round(LIMITS.start_bps * GROWTH_PER_S**2)


def test_an_allowance_that_is_not_used_does_not_grow() -> None:
    viewer = ViewerBitrate(LIMITS)
    for now_s in range(100):
        viewer.on_loss(0.0, LIMITS.start_bps / UNTRIED, float(now_s))
    assert viewer.target_bps == LIMITS.start_bps


def test_loss_at_a_low_rate_counts_from_that_rate() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.2, 400_000, 0.0)
    assert viewer.target_bps == 400_000 * UNTRIED * 0.9


def test_loss_before_anything_is_known_of_the_rate() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.2, 0.0, 0.0)
    assert viewer.target_bps == 1_080_000


def test_remb_below_what_is_sent_lowers_to_nine_tenths_of_it() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_remb(800_000, SENT)
    assert viewer.target_bps == 720_000
    viewer.on_loss(0.0, SENT, 0.0)
    viewer.on_loss(0.0, SENT, 1.0)
    assert viewer.target_bps == round(720_000 * GROWTH_PER_S)


def test_remb_of_a_receiver_that_gets_little_is_no_congestion() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_remb(90_000, 100_000)
    viewer.on_remb(50_000, 0.0)
    assert viewer.target_bps == LIMITS.start_bps


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 3), st.integers(0, 2**40)), max_size=50))
def test_the_target_stays_within_its_limits(reports: list[tuple[bool, float, float, int]]) -> None:
    viewer, now_s = ViewerBitrate(LIMITS), 0.0
    for is_loss, loss, step_s, bitrate_bps in reports:
        now_s += step_s
        if is_loss:
            viewer.on_loss(loss, float(bitrate_bps), now_s)
        else:
            viewer.on_remb(bitrate_bps, SENT)
        assert LIMITS.min_bps <= viewer.target_bps <= LIMITS.max_bps


def test_the_rate_that_is_sent() -> None:
    rate = SentRate()
    assert rate.bps() == 0
    for index in range(300):
        rate.add(index * VIDEO_CLOCK_HZ // 30, 5000 if index < 200 else 2500)
    assert rate.bps() == pytest.approx(2500 * 8 * 30)


def test_the_rate_begins_anew_with_another_clock() -> None:
    rate = SentRate()
    rate.add(VIDEO_CLOCK_HZ, 10**6)
    rate.add(0, 5000)
    assert rate.bps() == 0
    rate.add(VIDEO_CLOCK_HZ, 1000)
    assert rate.bps() == 8000


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ([], None),
        ([5], 5),
        ([9, 5, 7, 8], 5),  # up to four: nobody is left behind
        ([9, 5, 7, 8, 6], 6),  # five: the poorest no longer decides
        ([1, 1, 9, 9, 9, 9, 9, 9, 9, 9], 9),
        ([1, 1, 1, 9, 9, 9, 9, 9, 9, 9], 1),
    ],
)
def test_one_viewer_in_five_may_be_left_behind(targets: list[int], chosen: int | None) -> None:
    assert session_target_bps(targets) == chosen


def test_small_changes_are_not_worth_a_message_and_large_ones_wait_a_second() -> None:
    session = SessionBitrate(1_000_000)
    session.sent(1_000_000, "run", 0.0)
    assert session.to_send(500_000, "run", BITRATE_INTERVAL_S - 0.1) is None
    assert session.to_send(500_000, "run", BITRATE_INTERVAL_S) == 500_000
    assert session.to_send(1_069_000, "run", 5.0) is None
    assert session.to_send(931_000, "run", 5.0) is None
    assert session.to_send(1_071_000, "run", 5.0) == 1_071_000


def test_a_new_encoder_is_told_where_the_old_one_was() -> None:
    session = SessionBitrate(1_000_000)
    session.sent(400_000, "one", 0.0)
    assert session.to_send(400_000, "two", 2.0) == 400_000
    session.sent(400_000, "two", 2.0)
    assert session.to_send(400_000, "two", 4.0) is None
