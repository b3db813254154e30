from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.messages import KeyframeReason
from mien_signaling.feedback import (
    BITRATE_INTERVAL_S,
    GROWTH_PER_S,
    KEYFRAME_INTERVAL_S,
    KEYFRAME_RETRY_S,
    REMB_LIFETIME_S,
    BitrateLimits,
    KeyframeRequests,
    SessionBitrate,
    ViewerBitrate,
    session_target_bps,
)

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
    viewer.on_loss(0.2, 0.0)
    assert viewer.target_bps(0.0) == 1_080_000
    viewer.on_loss(0.0, 1.0)
    assert viewer.target_bps(1.0) == round(1_080_000 * GROWTH_PER_S)
    viewer.on_loss(0.01, 1.5)
    assert viewer.target_bps(1.5) == round(1_080_000 * GROWTH_PER_S**1.5)


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.10])
def test_some_loss_changes_nothing(loss: float) -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(loss, 0.0)
    viewer.on_loss(loss, 1.0)
    assert viewer.target_bps(1.0) == LIMITS.start_bps


def test_a_long_silence_raises_no_more_than_a_short_one() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.0, 0.0)
    viewer.on_loss(0.0, 100.0)
    assert viewer.target_bps(100.0) == round(LIMITS.start_bps * GROWTH_PER_S**2)


def test_remb_caps_at_nine_tenths_while_it_is_fresh() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_remb(800_000, 0.0)
    assert viewer.target_bps(0.0) == 720_000
    assert viewer.target_bps(REMB_LIFETIME_S) == 720_000
    assert viewer.target_bps(REMB_LIFETIME_S + 0.1) == LIMITS.start_bps


def test_growth_starts_from_what_remb_allowed() -> None:
    viewer = ViewerBitrate(LIMITS)
    viewer.on_loss(0.0, 0.0)
    viewer.on_remb(400_000, 0.5)
    viewer.on_loss(0.0, 1.0)
    assert viewer.target_bps(100.0) == round(360_000 * GROWTH_PER_S)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 3), st.integers(0, 2**40)), max_size=50),
)
def test_the_target_stays_within_its_limits(reports: list[tuple[bool, float, float, int]]) -> None:
    viewer, now_s = ViewerBitrate(LIMITS), 0.0
    for is_loss, loss, step_s, remb_bps in reports:
        now_s += step_s
        if is_loss:
            viewer.on_loss(loss, now_s)
        else:
            viewer.on_remb(remb_bps, now_s)
        assert LIMITS.min_bps <= viewer.target_bps(now_s) <= LIMITS.max_bps


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
