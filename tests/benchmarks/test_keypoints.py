"""`mien bench keypoints` runs both ways and reports what it measured."""

from __future__ import annotations

import json

from click.testing import CliRunner

from mien_bench.keypoints import keypoints
from mien_encoder.count import count


def test_the_bench_says_what_a_frame_costs_both_ways() -> None:
    result = CliRunner().invoke(keypoints, ["--frames", "2", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["frames"] == 2
    assert figures["ours_ms"] > 0 and figures["search_ms"] > 0
    assert (figures["macs"], figures["parameters"]) == (count().macs, count().parameters)


def test_the_bench_reads_as_a_sentence_too() -> None:
    result = CliRunner().invoke(keypoints, ["--frames", "1"])
    assert "ms a frame, and" in result.output
    assert "M parameters" in result.output
