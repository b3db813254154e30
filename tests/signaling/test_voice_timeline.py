"""One continuous stream from any runs: gaps and silence stay, joints do not show."""

from __future__ import annotations

from mien_shared.bus.voice import VoicePacket
from mien_signaling.voice_timeline import TimedVoice, VoiceTimeline

A, B, C = b"run-000A", b"run-000B", b"run-000C"


def packet(
    run: bytes, sequence: int, timestamp: int, *, marker: bool = False, capture_us: int | None = None
) -> VoicePacket:
    return VoicePacket(run, sequence & 0xFFFF, timestamp & 0xFFFF_FFFF, marker, 40, capture_us, b"opus")


def place(timeline: VoiceTimeline, one: VoicePacket, now_s: float) -> TimedVoice:
    found = timeline.place(one, now_s)
    assert found is not None
    return found


def test_a_run_keeps_its_steps_and_its_gaps() -> None:
    timeline = VoiceTimeline()
    got = [place(timeline, packet(A, 65534 + n, 2**32 - 960 + 960 * n), n * 0.02) for n in (0, 1, 4, 3, 5)]
    assert [one.sequence for one in got] == [0, 1, 4, 3, 5]
    assert [one.timestamp for one in got] == [0, 960, 3840, 2880, 4800]
    assert [one.marker for one in got] == [True, False, False, False, False]
    assert (got[0].level, got[0].payload, got[0].capture_s) == (40, b"opus", None)


def test_the_first_packet_after_silence_is_marked() -> None:
    timeline = VoiceTimeline()
    place(timeline, packet(A, 1, 0), 0)
    assert not place(timeline, packet(A, 2, 5760), 0.12).marker  # the longest Opus packet
    assert place(timeline, packet(A, 3, 5760 + 19_200), 0.52).marker
    assert not place(timeline, packet(A, 5, 5760 + 28_800), 0.72).marker  # a packet is missing: maybe no silence
    assert place(timeline, packet(A, 6, 5760 + 29_760, marker=True), 0.74).marker


def test_a_new_run_continues_where_the_last_one_ended() -> None:
    timeline = VoiceTimeline()
    for n in range(3):
        last = place(timeline, packet(A, 100 + n, 960 * n), 0.02 * n)
    begins = place(timeline, packet(B, 7, 123_456), last_s := 0.04 + 1.5)
    assert (begins.sequence, begins.marker) == (last.sequence + 1, True)
    assert begins.timestamp == last.timestamp + 72_000
    follows = place(timeline, packet(B, 8, 123_456 + 960), last_s + 0.02)
    assert (follows.sequence, follows.timestamp) == (begins.sequence + 1, begins.timestamp + 960)


def test_a_new_run_at_once_is_one_packet_later() -> None:
    timeline = VoiceTimeline()
    last = place(timeline, packet(A, 1, 0), 5.0)
    assert place(timeline, packet(B, 1, 0), 4.9).timestamp == last.timestamp + 960


def test_packets_of_a_replaced_run_are_dropped() -> None:
    timeline = VoiceTimeline()
    place(timeline, packet(A, 1, 0), 0)
    place(timeline, packet(B, 1, 0), 0.02)
    assert timeline.place(packet(A, 2, 960), 0.03) is None
    assert place(timeline, packet(B, 2, 960), 0.04).sequence == 2
    place(timeline, packet(C, 9, 0), 0.06)
    assert timeline.place(packet(B, 3, 1920), 0.07) is None


def test_the_time_of_the_recording_can_be_left_out() -> None:
    one = place(VoiceTimeline(), packet(A, 1, 0, capture_us=1_500_000), 0)
    assert one.capture_s == 1.5
    assert one.without_capture().capture_s is None
