"""When an SFU counts as silent, and how long a service waits before the next attempt."""

from __future__ import annotations

from mien_signaling.sfu_watch import GOOD_S, LONGEST_WAIT_S, SILENCE_S, Attempts, ReportWatch


def send(watch: ReportWatch, from_s: float, to_s: float) -> None:
    for tick in range(round((to_s - from_s) * 30)):
        watch.sent(from_s + tick / 30)


def test_an_sfu_that_reports_is_never_silent() -> None:
    watch = ReportWatch()
    for second in range(20):
        send(watch, second, second + 1)
        watch.reported()
        assert not watch.is_silent(second + 1)


def test_an_sfu_is_silent_after_five_seconds_of_video_without_a_report() -> None:
    watch = ReportWatch()
    send(watch, 0, SILENCE_S)
    assert not watch.is_silent(SILENCE_S)
    send(watch, SILENCE_S, SILENCE_S + 0.5)
    assert watch.is_silent(SILENCE_S + 0.5)


def test_without_video_there_is_nothing_to_report() -> None:
    watch = ReportWatch()
    assert not watch.is_silent(100)
    send(watch, 0, 1)
    assert not watch.is_silent(60)
    send(watch, 60, 61)  # the first frames after a pause: the receiver has had no time to report
    assert not watch.is_silent(61)
    send(watch, 61, 66)
    assert watch.is_silent(66)


def test_attempts_come_less_and_less_often() -> None:
    attempts = Attempts()
    waits = []
    for _ in range(8):
        attempts.failed(0)
        waits.append(attempts.wait_s(dice=1))
    assert waits == [1, 2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert attempts.wait_s(dice=0) == LONGEST_WAIT_S / 2
    assert attempts.wait_s(dice=0, retry_after_s=120) == 120


def test_a_connection_that_held_counts_failures_anew() -> None:
    attempts = Attempts()
    for _ in range(5):
        attempts.failed(1)
    attempts.failed(GOOD_S)
    assert (attempts.failures, attempts.wait_s(dice=1)) == (1, 1)
    for _ in range(2000):
        attempts.failed(0)
    assert attempts.wait_s(dice=1) == LONGEST_WAIT_S
