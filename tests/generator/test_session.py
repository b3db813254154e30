"""A session's figures over the last seconds."""

from __future__ import annotations

import pytest

from mien_generator.session import Meter


def test_figures_are_of_the_last_seconds() -> None:
    meter = Meter(0.0)
    for number in range(300):
        at_s = number / 30
        meter.arrived(at_s)
        meter.encoded(at_s, 5000 if at_s < 5 else 1000, 0.010 if at_s < 5 else 0.020)
    stats = meter.stats(10.0, "warp", "warp-384")
    assert stats.fps == pytest.approx(30, abs=0.5)
    assert stats.bitrate_bps == pytest.approx(30 * 1000 * 8, rel=0.02)
    assert stats.uplink_bps == pytest.approx(30 * 128 * 8, rel=0.02)
    assert (stats.motion_to_packet_ms_p50, stats.motion_to_packet_ms_p99) == (20.0, 20.0)
    assert not stats.idle


def test_a_young_session_is_measured_over_its_own_life() -> None:
    meter = Meter(100.0)
    for number in range(30):
        meter.arrived(100.0 + number / 30)
        meter.encoded(100.0 + number / 30, 1000, 0.01)
    assert meter.stats(101.0, "warp", "warp-384").fps == pytest.approx(30, abs=0.1)


def test_default_motion_has_no_latency() -> None:
    meter = Meter(0.0)
    meter.encoded(1.0, 1000, None)
    stats = meter.stats(1.1, "warp", "warp-384")
    assert stats.idle
    assert stats.motion_to_packet_ms_p50 is None
    assert stats.uplink_bps == 0


def test_a_session_without_a_frame_has_zeros() -> None:
    assert Meter(5.0).stats(5.0, "warp", "warp-384").fps == 0


def test_rates_are_of_the_last_second() -> None:
    meter = Meter(0.0)
    for number in range(300):
        meter.arrived(number / 30)
        if number % 2:
            meter.encoded(number / 30, 1000, 0.01)
    arrived_fps, made_fps = meter.rates_fps(299 / 30)
    assert arrived_fps == pytest.approx(30, abs=1)
    assert made_fps == pytest.approx(15, abs=1)
    assert meter.rates_fps(20.0) == (0.0, 0.0)
