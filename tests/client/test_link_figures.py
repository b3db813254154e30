"""Figures of a link of a meeting, from times that are known."""

from __future__ import annotations

import pytest

from mien_client.link_figures import LinkFigures, SentVoice
from mien_client.voice_packets import VoicePacket


def packet(number: int, received_s: float, captured_s: float | None = None) -> VoicePacket:
    return VoicePacket(bytes([number]), number, 960 * number, 20, received_s, captured_s)


def link(
    picture_late_s: float, voice_late_s: float, buffer_s: float, without: frozenset[int] = frozenset()
) -> LinkFigures:
    """Five seconds of a link whose delays do not change."""
    sent = SentVoice()
    figures = LinkFigures(sent)
    for number in range(150):
        if number not in without:
            figures.picture(100 + number / 30, 100 + number / 30 + picture_late_s)
    for number in range(250):
        made_s = 100 + number / 50
        sent.sent(bytes([number]), made_s)
        figures.packet(packet(number, made_s + voice_late_s))
        figures.sound(960 * number, made_s + voice_late_s + buffer_s)
    return figures


def test_latencies_and_the_offset_of_voice_and_lips() -> None:
    figures = link(picture_late_s=0.15, voice_late_s=0.09, buffer_s=0.08).as_json(100, 106)
    assert figures["fps"] == pytest.approx(30, abs=0.01)
    assert (figures["latency_ms_p50"], figures["voice_ms_p50"]) == (150, 90)
    assert figures["av_offset_ms_p50"] == -20  # the voice is heard 170 ms after the mouth, the lips are seen after 150
    assert figures["av_offset_ms_p95"] == 20
    assert figures["voice_loss"] == 0


def test_a_frozen_picture_is_counted_also_at_the_end() -> None:
    gap = frozenset(range(60, 90)) | frozenset(range(120, 150))
    assert link(0.1, 0.1, 0, gap).as_json(100, 105.1)["frozen_s"] == pytest.approx(31 / 30 + 1.03, abs=0.02)
    assert link(0.1, 0.1, 0).as_json(100, 105)["frozen_s"] == 0


def test_lost_packets_of_voice_are_counted_over_the_wrap_of_their_numbers() -> None:
    figures = LinkFigures()
    for at, number in enumerate([65534, 65535, 0, 3, 2, 5]):
        figures.packet(VoicePacket(b"-", number, 960 * at, None, 100 + at / 50, None))
    assert figures.as_json(99, 101)["voice_loss"] == pytest.approx(2 / 8)


def test_without_the_sender_its_reports_say_when_a_voice_was_recorded() -> None:
    figures = LinkFigures()
    for number in range(50):
        figures.packet(packet(number, 100.07 + number / 50, None if number < 10 else 100 + number / 50))
    assert figures.as_json(99, 102)["voice_ms_p50"] == 70


def test_default_motion_has_no_latency_and_nothing_received_has_no_figures() -> None:
    figures = LinkFigures()
    figures.picture(None, 100)
    figures.picture(None, 100.1)
    assert figures.as_json(99, 100.1)["latency_ms_p50"] is None
    assert figures.as_json(99, 100.1)["fps"] == 10
    assert LinkFigures().as_json(99, 101) == dict.fromkeys(figures.as_json(0, 1)) | {"frozen_s": 2}


def test_of_sent_packets_a_minute_is_remembered() -> None:
    sent = SentVoice()
    for number in range(4000):
        sent.sent(number.to_bytes(4), number / 50)
    assert len(sent.made_unix_s) == 3000 and (3999).to_bytes(4) in sent.made_unix_s
