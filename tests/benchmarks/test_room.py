"""`mien bench room` runs and says what it should; how much it costs, is for the bench to say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mien_bench.room import room

pytestmark = pytest.mark.integration


def test_the_bench_reports_a_room() -> None:
    arguments = ["--participants", "2", "--seconds", "1", "--json"]
    (found,) = json.loads(CliRunner().invoke(room, arguments, catch_exceptions=False).output)["rooms"]
    assert found["participants"] == 2 and found["cores"] > 0 and found["cpu_ms_per_stream"] > 0
    assert found["packets_per_s"] > 5 and found["downlink_kbit_s"] > 10
