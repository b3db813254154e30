"""Which RTP packets of a speaker are voice: every reason for a refusal, and what a restart looks like."""

from __future__ import annotations

import struct

import pytest

from mien_shared.bus.voice import MAX_VOICE_BYTES, VoicePacket
from mien_signaling.rtp_packet import SenderReport
from mien_signaling.voice_filter import (
    ALLOWED_REFUSALS,
    BURST_PACKETS,
    BURST_REPORTS,
    MAX_PACKETS_PER_S,
    RESTART_DISTANCE,
    SSRC_SILENCE_S,
    WINDOW,
    Allowance,
    VoiceFilter,
    VoiceVerdict,
)

ACCEPTED = VoiceVerdict.ACCEPTED


def rtp(
    sequence: int, *, ssrc: int = 7, payload_type: int = 111, payload: bytes = b"opus", timestamp: int = 0
) -> bytes:
    return struct.pack("!BBHLL", 0x80, payload_type, sequence & 0xFFFF, timestamp, ssrc) + payload


class Judge:
    """A filter, and a clock that moves by 20 ms with each packet."""

    def __init__(self) -> None:
        self.filter = VoiceFilter(111, None, b"abcdef", 0.0)
        self.now_s = 0.0
        self.last: VoicePacket | None = None

    def __call__(self, data: bytes, after_s: float = 0.02) -> VoiceVerdict:
        self.now_s += after_s
        verdict, self.last = self.filter.packet(data, self.now_s)
        assert (self.last is not None) == (verdict is ACCEPTED)
        return verdict

    @property
    def run(self) -> bytes:
        assert self.last is not None
        return self.last.run


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", VoiceVerdict.MALFORMED),
        (rtp(2, payload_type=112), VoiceVerdict.PAYLOAD_TYPE),
        (rtp(2, payload=b""), VoiceVerdict.SIZE),
        (rtp(2, payload=bytes(MAX_VOICE_BYTES + 1)), VoiceVerdict.SIZE),
        (rtp(2, payload=bytes(MAX_VOICE_BYTES)), ACCEPTED),
        (rtp(2, ssrc=8), VoiceVerdict.SSRC),
        (rtp(1), VoiceVerdict.DUPLICATE),
        (rtp(0), ACCEPTED),
        (rtp(1 - WINDOW), VoiceVerdict.LATE),
        (rtp(2 - WINDOW), ACCEPTED),
    ],
)
def test_one_packet_after_the_first(data: bytes, verdict: VoiceVerdict) -> None:
    judge = Judge()
    assert judge(rtp(1)) is ACCEPTED
    assert judge(data) is verdict


def test_what_was_refused_changes_nothing() -> None:
    judge = Judge()
    assert judge(rtp(1)) is ACCEPTED
    run = judge.run
    for data in (rtp(500, ssrc=8), rtp(500, payload_type=9), b"", rtp(500, payload=b"")):
        judge(data)
    assert judge(rtp(2)) is ACCEPTED and judge.run == run


def test_sequence_numbers_wrap() -> None:
    judge = Judge()
    assert [judge(rtp(at)) for at in range(65530, 65545)] == [ACCEPTED] * 15
    assert judge(rtp(65535)) is VoiceVerdict.DUPLICATE


def test_another_stream_begins_a_run_once_the_first_is_silent() -> None:
    judge = Judge()
    judge(rtp(1))
    run = judge.run
    assert judge(rtp(9, ssrc=8), SSRC_SILENCE_S) is ACCEPTED
    assert judge.run != run and judge.filter.ssrc == 8
    assert judge(rtp(2)) is VoiceVerdict.SSRC


@pytest.mark.parametrize("step", [RESTART_DISTANCE + 1, -RESTART_DISTANCE - 1])
def test_a_leap_of_the_numbers_begins_a_run(step: int) -> None:
    judge = Judge()
    judge(rtp(5000))
    run = judge.run
    assert judge(rtp(5000 + step)) is ACCEPTED
    assert judge.run != run


def test_a_flood_is_cut_to_the_rate() -> None:
    judge = Judge()
    verdicts = [judge(rtp(at), 0.0001) for at in range(10_000)]  # 10,000 packets in a second
    taken = verdicts.count(ACCEPTED)
    assert taken == pytest.approx(MAX_PACKETS_PER_S + BURST_PACKETS, abs=2)
    assert set(verdicts) == {ACCEPTED, VoiceVerdict.RATE}


def captured_us(judge: Judge) -> int | None:
    assert judge.last is not None
    return judge.last.capture_us


def test_reports_map_timestamps_to_the_speaker_s_clock() -> None:
    judge = Judge()
    judge(rtp(1, timestamp=960))
    assert captured_us(judge) is None
    assert not judge.filter.report(SenderReport(8, 1000.0, 0, 0), judge.now_s)
    assert judge.filter.report(SenderReport(7, 1000.0, 2**32 - 480, 0), judge.now_s)
    judge(rtp(2, timestamp=480))
    assert captured_us(judge) == 1_000_020_000
    judge(rtp(1, ssrc=9, timestamp=480), 2.0)  # another stream: the mapping is not its own
    assert captured_us(judge) is None


def test_reports_are_limited() -> None:
    judge = Judge()
    judge(rtp(1))
    taken = sum(judge.filter.report(SenderReport(7, 1.0, 2, 0), judge.now_s) for _ in range(1000))
    assert taken == BURST_REPORTS


def test_an_allowance_refills_and_is_bounded() -> None:
    allowance = Allowance(10, ALLOWED_REFUSALS, 0.0)
    assert sum(allowance.take(0.0) for _ in range(5000)) == ALLOWED_REFUSALS
    assert [allowance.take(0.15), allowance.take(0.15)] == [True, False]
    assert sum(allowance.take(1e6) for _ in range(5000)) == ALLOWED_REFUSALS
