"""One slot's streams stay continuous for their receiver, whoever is in the slot."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.slot_timeline import PICTURE, VOICE, SlotClock, StreamTimeline, VoiceContinuity
from mien_signaling.voice_timeline import TimedVoice

FRAME = 960


def packet(sequence: int, timestamp: int, capture_s: float | None = None, *, marker: bool = False) -> TimedVoice:
    return TimedVoice(sequence & 0xFFFF, timestamp & 0xFFFF_FFFF, marker, 40, capture_s, b"x")


class Numbers:
    """Sends packets of one source through a continuity."""

    def __init__(self, voice: VoiceContinuity, sequence: int, timestamp: int) -> None:
        self._voice, self.sequence, self.timestamp = voice, sequence, timestamp

    def say(self, now_s: float, capture_s: float | None = None) -> TimedVoice:
        placed = self._voice.place(packet(self.sequence, self.timestamp, capture_s), now_s)
        self.skip()
        assert placed is not None
        return placed

    def skip(self) -> None:
        self.sequence, self.timestamp = self.sequence + 1, self.timestamp + FRAME


def test_the_first_source_keeps_its_timestamps_and_the_next_go_on_by_the_time_that_passed() -> None:
    line = StreamTimeline(90_000)
    assert [line.place(1000, 5.0), line.place(4000, 5.033)] == [1000, 4000]
    line.begin()
    assert line.place(77, 5.533) == 4000 + 45_000
    assert line.place(77 + 3000, 5.6) == 4000 + 48_000
    line.begin()
    line.begin()
    assert line.place(10**9, 5.6) == 4000 + 48_000 + round(0.016 * 90_000), "never the same timestamp twice"


def test_packets_that_are_not_sent_are_no_loss_and_lost_ones_are() -> None:
    voice = VoiceContinuity(SlotClock())
    ada = Numbers(voice, 65_534, 100)
    sent = [ada.say(1.0), ada.say(1.02), ada.say(1.04)]
    assert [one.sequence for one in sent] == [0, 1, 2]
    ada.skip()  # lost before it came to us
    assert ada.say(1.08).sequence == 4
    for _ in range(50):
        voice.pause()
        ada.skip()
    again = ada.say(2.1)
    assert again.sequence == 5 and again.marker
    assert again.timestamp - sent[0].timestamp == 55 * FRAME, "the same clock: the silence is as long as it was"
    late = voice.place(packet(ada.sequence - 3, ada.timestamp - 3 * FRAME), 2.11)
    assert late is None, "what is older than the pause would take the numbers of what was sent before it"
    assert voice.place(packet(ada.sequence + 1, ada.timestamp), 2.12) is not None
    assert voice.place(packet(ada.sequence, ada.timestamp - FRAME), 2.13) is not None, "out of order, after the pause"


def test_another_participant_follows_in_number_and_time() -> None:
    voice = VoiceContinuity(SlotClock())
    ada, bob = Numbers(voice, 9, 2**32 - FRAME), Numbers(voice, 40_000, 12345)
    first = [ada.say(1.0), ada.say(1.02)]
    assert (first[1].timestamp - first[0].timestamp) & 0xFFFF_FFFF == FRAME, "the source's timestamps may wrap"
    voice.begin()
    now = bob.say(1.52)
    assert now.sequence == 2 and now.marker
    assert (now.timestamp - first[1].timestamp) & 0xFFFF_FFFF == 24_000
    assert bob.say(1.54).sequence == 3


def test_the_first_participant_is_reported_by_its_own_clock() -> None:
    clock = SlotClock()
    assert clock.reported_s(PICTURE, 1000.0, 5.0) == 1000.0
    assert clock.reported_s(VOICE, 1000.1, 5.2) == 1000.1


def test_reported_times_go_on_over_a_change_and_both_streams_have_one_shift() -> None:
    clock = SlotClock()
    clock.reported_s(VOICE, 999.96, 5.0)
    clock.reported_s(PICTURE, 1000.0, 5.0)
    clock.begin()
    # The second device's clock is an hour ahead. Its pictures are 50 ms later than the first one's.
    assert clock.reported_s(PICTURE, 4600.95, 6.0) == pytest.approx(1001.0)
    assert clock.reported_s(VOICE, 4600.95, 6.0) == pytest.approx(1001.0), "recorded at the same moment"
    assert clock.reported_s(PICTURE, 4601.95, 7.0) == pytest.approx(1002.0)


def test_a_change_before_any_report_needs_no_shift() -> None:
    clock = SlotClock()
    clock.begin()
    clock.begin()
    assert clock.reported_s(VOICE, 77.0, 5.0) == 77.0


def test_a_stream_without_a_report_follows_the_other_one() -> None:
    clock = SlotClock()
    clock.reported_s(PICTURE, 1000.0, 5.0)
    clock.begin()
    assert clock.reported_s(VOICE, 50.0, 5.5) == pytest.approx(1000.5)


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(1, 6), st.booleans()), max_size=8)
)
def test_any_series_of_participants_is_one_stream(turns: list[tuple[int, int, int, bool]]) -> None:
    voice, now_s, sent = VoiceContinuity(SlotClock()), 1.0, list[TimedVoice]()
    for timestamp, sequence, packets, pauses in turns:
        voice.begin()
        source = Numbers(voice, sequence, timestamp)
        for _ in range(packets):
            sent.append(source.say(now_s))
            now_s += 0.02
            if pauses:
                voice.pause()
                source.skip()
                now_s += 0.02
    assert all((b.sequence - a.sequence) & 0xFFFF == 1 for a, b in pairwise(sent))
    assert all(0 < (b.timestamp - a.timestamp) & 0xFFFF_FFFF < 48_000 for a, b in pairwise(sent))
