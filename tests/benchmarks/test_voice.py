"""`mien bench voice` runs and says what it should; how much it costs, is for the bench to say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mien_bench.voice import voice

pytestmark = pytest.mark.integration


def test_the_bench_reports_every_way() -> None:
    arguments = ["--viewers", "2", "--seconds", "1", "--turns", "1", "--json"]
    result = CliRunner().invoke(voice, arguments, catch_exceptions=False)
    found = json.loads(result.output)
    assert found.keys() == {"voice", "aiortc", "picture", "both", "ratio"}
    assert found["ratio"] > 0
    for way in ("voice", "aiortc", "picture", "both"):
        assert found[way]["packets_per_viewer"] > 5, way
    assert found["both"]["packets_per_viewer"] > found["picture"]["packets_per_viewer"]
