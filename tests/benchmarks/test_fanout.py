"""`mien bench fanout` runs and says what it should; how much faster it is, is for the bench to say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mien_bench.fanout import fanout

pytestmark = pytest.mark.integration


def test_all_ways_are_measured_at_the_rate_that_was_asked_for() -> None:
    arguments = ["--viewers", "2", "--encode-viewers", "1", "--seconds", "1", "--turns", "1", "--json"]
    result = CliRunner().invoke(fanout, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert set(report) == {"kbps", "passthrough", "one_port", "encoding", "ratio", "port_ratio"}
    assert report["kbps"] == pytest.approx(1200, rel=0.25)
    for name in ("passthrough", "one_port"):
        through = report[name]
        assert through["viewers"] == 2
        # Every frame arrives as several packets at every viewer, whatever this machine can bear beside.
        assert through["packets_per_viewer"] > 3 * through["fps"] > 0
    assert report["ratio"] > 1
    assert report["port_ratio"] > 0
