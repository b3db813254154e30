"""What our receiver reports say of a stream."""

from __future__ import annotations

from mien_signaling.reception import Reception


def test_before_the_first_packet_there_is_no_report() -> None:
    assert Reception(1, 48_000).report() is None


def test_loss_since_the_last_report_and_in_all() -> None:
    reception = Reception(7, 48_000)
    for n in range(100):
        if n % 4:
            reception.packet((65_500 + n) & 0xFFFF, 960 * n, 0.02 * n)
    first = reception.report()
    assert first is not None
    assert (first.ssrc, first.lost, first.lost_q8) == (7, 24, 24 * 256 // 99)
    assert first.highest == 65_599  # one cycle
    for n in range(100, 150):
        reception.packet((65_500 + n) & 0xFFFF, 960 * n, 0.02 * n)
    second = reception.report()
    assert second is not None and (second.lost, second.lost_q8) == (24, 0)


def test_duplicates_are_no_negative_loss_share() -> None:
    reception = Reception(7, 48_000)
    for _ in range(3):
        reception.packet(5, 0, 0.0)
    report = reception.report()
    assert report is not None and (report.lost, report.lost_q8) == (-2, 0)


def test_jitter_of_an_even_stream_is_none_and_of_an_uneven_one_is_some() -> None:
    even, uneven = Reception(1, 48_000), Reception(1, 48_000)
    for n in range(200):
        even.packet(n, 2**32 - 48_000 + 960 * n, 1e5 + 0.02 * n)
        uneven.packet(n, 960 * n, 0.02 * n + 0.01 * (n % 2))
    steady, shaky = even.report(), uneven.report()
    assert steady is not None and steady.jitter <= 1
    assert shaky is not None and abs(shaky.jitter - 480) < 20
