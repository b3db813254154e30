"""The benches that run whole processes: short runs, whose figures must be complete and hang together."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mien_bench.latency import STAGES, latency
from mien_bench.sessions import memory, sessions
from mien_bench.uplink import uplink

pytestmark = pytest.mark.integration


def figures_of(command: click.Command, *arguments: str) -> Any:
    run = CliRunner().invoke(command, [*arguments, "--json"])
    assert run.exit_code == 0, run.output
    return json.loads(run.stdout.splitlines()[-1])


def test_sessions_raises_the_load_until_it_breaks_or_is_told_to_stop() -> None:
    (found,) = figures_of(
        sessions, "--fps", "15", "--most", "2", "--seconds", "1", "--settle", "0.5", "--engine", "warp"
    )
    assert found["fps"] == 15
    levels = found["levels"]
    assert [level["speakers"] for level in levels][:1] == [1]
    assert found["holds"] == max([level["speakers"] for level in levels if level["holds"]], default=0)
    assert all(level["fps_median"] > 0 and level["cores"] > 0 and level["memory_bytes"] > 0 for level in levels)


def test_latency_tells_the_stages_of_each_frame() -> None:
    found = figures_of(latency, "--seconds", "2", "--engine", "warp")
    assert found["frames"] > 10
    stages = found["stages_ms"]
    assert tuple(stages) == STAGES
    assert all(stage["p50"] <= stage["p99"] for stage in stages.values())
    assert stages["device"]["p50"] > 0
    assert stages["total"]["p50"] >= max(stages[name]["p50"] for name in ("device", "compose", "encode"))


def test_uplink_runs_both_ways() -> None:
    found = figures_of(uplink, "--uplinks", "5", "--seconds", "1")
    assert found["ours"]["bytes_per_packet"] == 128 < found["plain"]["bytes_per_packet"]
    assert min(found["ours"]["packets_per_core_second"], found["plain"]["packets_per_core_second"]) > 0


@pytest.mark.long
def test_memory_of_a_session_and_of_an_avatar() -> None:
    found = figures_of(memory, "--sessions", "3", "--engine", "warp")
    assert found["empty"] > 10e6
    assert 0 < found["session"] < 100e6
