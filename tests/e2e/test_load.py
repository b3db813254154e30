"""The load tools in short runs, and their arithmetic."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from load.figures import Level, Spread, cost_of_one_more, knee
from load.machine import Usage
from load.scrape import quantile
from load.stress import StressLevel

ROOT = Path(__file__).parents[2]


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.long
@pytest.mark.e2e
def test_two_speakers_and_their_viewers_are_measured(tmp_path: Path) -> None:
    result = load("load.run", "--speakers", "2", "--seconds", "3", "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    run = json.loads(result.stdout)
    assert json.loads((tmp_path / "run.json").read_text()) == run
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    (level,) = (Level.model_validate(level) for level in run["levels"])
    assert (level.speakers, level.viewers) == (2, 2)
    assert not any(level.errors.values())
    assert level.refused == {}
    assert level.fps_min > 5
    assert level.capture_to_receiver_ms.count > 20
    for spread in (level.motion_to_packet_ms, level.capture_to_receiver_ms):
        assert spread.p50 is not None and spread.p95 is not None and spread.p99 is not None
        assert 0 < spread.p50 <= spread.p95 <= spread.p99
    assert level.uplink_kbit_s > 10
    assert level.downlink_kbit_s > 50
    assert set(level.usage) >= {"gateway", "generator", "signaling", "redis"}
    assert level.cores("generator") > 0
    assert all(used.rss_mib > 1 for used in level.usage.values())


@pytest.mark.long
@pytest.mark.e2e
def test_five_users_pass_the_stress_test(tmp_path: Path) -> None:
    options = ("--users", "5", "--seconds", "3", "--think", "0.2", "--out", str(tmp_path), "--json")
    result = load("load.stress", *options)
    level = StressLevel.model_validate_json(result.stdout)
    assert level.users == 5, result.stderr
    assert level.errors == {}
    assert level.rest_ms.count > 5
    assert level.create_ms.count == 5
    assert level.uplink_ms.count > 100
    assert 0 < level.delivered <= 1.1
    assert result.returncode == (0 if level.passed else 1)


def level(speakers: int, fps: float = 30.0, errors: int = 0, cores: float = 0.0) -> Level:
    return Level(
        speakers=speakers,
        viewers=speakers,
        seconds=1,
        load_average=0,
        motion_to_packet_ms=Spread.of([10.0, 20.0]),
        capture_to_receiver_ms=Spread(),
        fps_min=fps,
        fps_median=fps,
        stalled_frames=0,
        errors={"viewers lost": errors},
        refused={},
        uplink_kbit_s=0,
        downlink_kbit_s=0,
        usage={"generator": Usage(cores=cores, rss_mib=1), "generator-2": Usage(cores=cores, rss_mib=1)},
    )


def test_the_knee_is_before_the_first_level_that_does_not_hold() -> None:
    held = [level(1), level(2)]
    assert knee([*held, level(4, fps=20), level(8)]) is held[1]
    assert knee([level(1, errors=1), level(2)]) is None


def test_one_more_speaker_costs_the_slope_of_the_levels_that_hold() -> None:
    levels = [level(1, cores=0.2), level(3, cores=0.4), level(9, cores=0.4, fps=9)]
    assert cost_of_one_more(levels, "generator", "speakers") == pytest.approx(0.2)  # both processes of the service
    assert cost_of_one_more(levels[:1], "generator", "speakers") is None


def test_percentiles_of_a_histogram_are_those_of_the_time_between_two_scrapes() -> None:
    before = Counter({0.01: 100, 0.02: 100, math.inf: 100})
    after = Counter({0.01: 110, 0.02: 120, math.inf: 120})
    assert quantile(before, after, 0.25) == pytest.approx(0.005)
    assert quantile(before, after, 0.75) == pytest.approx(0.015)
    assert quantile(before, before, 0.5) is None
    beyond = Counter({0.01: 100, 0.02: 100, math.inf: 101})
    assert quantile(before, beyond, 0.5) == 0.02
