"""Silence and voice of a publication are one stream of numbers."""

from __future__ import annotations

from itertools import pairwise

from mien_signaling.sfu_voice import INTERVAL_S, SILENCE, SilenceFiller
from mien_signaling.voice_timeline import TimedVoice


def voice(number: int, timestamp: int | None = None) -> TimedVoice:
    at = 960 * number if timestamp is None else timestamp
    return TimedVoice(number & 0xFFFF, at & 0xFFFF_FFFF, False, 30, 1.0 + number, b"voice")


def distance(later: int, earlier: int, bits: int) -> int:
    half, whole = 1 << bits - 1, 1 << bits
    return (later - earlier + half) % whole - half


def test_silence_is_said_at_once_and_then_four_hundred_milliseconds_after_the_last_packet() -> None:
    filler = SilenceFiller()
    assert filler.due_in_s(5) <= 0
    first = filler.silence(5)
    assert (first.payload, first.marker, first.capture_s, first.level) == (SILENCE, True, None, 127)
    assert filler.due_in_s(5.1) > 0 >= filler.due_in_s(5 + INTERVAL_S)
    filler.voice(voice(0), 5.2)
    assert filler.due_in_s(5.5) > 0, "voice is no silence"


def test_numbers_rise_by_one_and_timestamps_rise_through_silence_and_voice() -> None:
    filler, sent, now_s = SilenceFiller(), [], 0.0
    for _ in range(3):
        sent.append(filler.silence(now_s))
        now_s += INTERVAL_S
    for number in range(10):
        sent.append(filler.voice(voice(65_530 + number), now_s))  # the session's own numbers wrap
        now_s += 0.02
    paused_s = now_s
    for _ in range(5):
        now_s += INTERVAL_S
        sent.append(filler.silence(now_s))
    now_s += 0.1
    ticks = round((now_s - paused_s) * 48_000)
    for number in range(10, 14):
        sent.append(filler.voice(voice(65_530 + number, 960 * (65_530 + number) + ticks), now_s))
        now_s += 0.02
    assert all(distance(b.sequence, a.sequence, 16) == 1 for a, b in pairwise(sent))
    assert all(distance(b.timestamp, a.timestamp, 32) >= 960 for a, b in pairwise(sent))


def test_gaps_and_late_packets_of_the_voice_stay_what_they_are() -> None:
    filler = SilenceFiller()
    filler.silence(0)
    sent = [filler.voice(voice(number), 0.1) for number in (0, 1, 4, 3, 5)]
    base = sent[0].sequence
    assert [packet.sequence - base for packet in sent] == [0, 1, 4, 3, 5]
    assert [packet.capture_s for packet in sent] == [1.0, 2.0, 5.0, 4.0, 6.0]
    assert distance(filler.silence(0.6).sequence, sent[-1].sequence, 16) == 1
