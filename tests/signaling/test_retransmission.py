from __future__ import annotations

from mien_signaling.retransmission import (
    BUDGET_SHARE,
    DEFAULT_RTT_S,
    HISTORY_PACKETS,
    LEAST_BUDGET_BPS,
    LEAST_PACE_BPS,
    LONGEST_RTT_S,
    PACE,
    Ignored,
    Retransmissions,
    first_of,
    pause_s,
)

SIZE = 1200
STREAM_BPS = 1_200_000.0


def test_a_packet_is_sent_again_once_a_round_trip() -> None:
    again = Retransmissions()
    assert again.request(7, SIZE, STREAM_BPS, 0.0) is None
    assert again.request(7, SIZE, STREAM_BPS, 0.0) is Ignored.REPEATED  # it still waits
    assert again.next(0.01) == 7
    assert again.request(7, SIZE, STREAM_BPS, 0.01 + 0.9 * DEFAULT_RTT_S) is Ignored.REPEATED
    assert again.request(7, SIZE, STREAM_BPS, 0.01 + 1.1 * DEFAULT_RTT_S) is None


def test_the_round_trip_is_what_reports_say_within_bounds() -> None:
    again = Retransmissions()
    for reported_s, wait_s in ((0.3, 0.3), (90.0, LONGEST_RTT_S)):
        again.on_rtt(reported_s)
        assert again.request(7, SIZE, STREAM_BPS, 10 * reported_s) is None
        assert again.next(10 * reported_s) == 7
        assert again.request(7, SIZE, STREAM_BPS, 10 * reported_s + 0.99 * wait_s) is Ignored.REPEATED


def asked_all_the_time(again: Retransmissions, seconds: int, stream_bps: float) -> int:
    """Bits sent again to a viewer that asks for a new packet every millisecond."""
    sent = 0
    for millisecond in range(seconds * 1000):
        now_s = millisecond / 1000
        if again.request(millisecond % 65_536, SIZE, stream_bps, now_s) is None:
            sent += SIZE * 8
            again.next(now_s)
    return sent


def test_all_together_stay_within_a_share_of_the_stream() -> None:
    sent_bps = asked_all_the_time(Retransmissions(), 20, STREAM_BPS) / 20
    assert BUDGET_SHARE * STREAM_BPS * 0.95 < sent_bps < BUDGET_SHARE * STREAM_BPS * 1.1


def test_a_slow_stream_can_still_be_repaired() -> None:
    sent_bps = asked_all_the_time(Retransmissions(), 20, 0.0) / 20
    assert LEAST_BUDGET_BPS * 0.95 < sent_bps < LEAST_BUDGET_BPS * 1.1


def test_a_whole_lost_idr_comes_again() -> None:
    again = Retransmissions()
    asked_all_the_time(again, 1, STREAM_BPS)
    rested_s = 5.0
    idr = range(100, 100 + 48_000 // SIZE)
    assert [again.request(sequence, SIZE, STREAM_BPS, rested_s) for sequence in idr] == [None] * len(idr)
    assert [again.next(rested_s) for _ in idr] == list(idr)
    assert again.next(rested_s) is None


def test_what_exceeds_the_budget_is_named() -> None:
    again = Retransmissions()
    results = [again.request(sequence, SIZE, 0.0, 0.0) for sequence in range(100)]
    assert set(results) == {None, Ignored.OVER_BUDGET}


def test_packets_follow_each_other_at_a_pace_above_the_streams() -> None:
    assert pause_s(SIZE, STREAM_BPS) == SIZE * 8 / (PACE * STREAM_BPS)
    assert pause_s(SIZE, 0.0) == SIZE * 8 / LEAST_PACE_BPS


def test_of_a_long_list_the_first_different_numbers_count() -> None:
    assert first_of([5, 5, 6]) == [5, 6]
    assert first_of(range(60_000)) == list(range(HISTORY_PACKETS))


def test_what_is_remembered_is_bounded() -> None:
    again = Retransmissions()
    asked_all_the_time(again, 20, 50_000_000.0)
    assert len(again._sent_s) <= HISTORY_PACKETS
