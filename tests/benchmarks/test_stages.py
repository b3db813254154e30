"""`mien bench stages` makes real frames and reports each stage."""

import json

import pytest
from click.testing import CliRunner

from mien_bench import stages as bench


def test_every_stage_is_reported_and_their_sum() -> None:
    result = CliRunner().invoke(bench.stages, ["--frames", "10", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)["stages"]
    assert set(rows) == {*bench.STAGES, "all"}
    assert all(row["cpu_ms"] > 0 for row in rows.values())
    assert rows["all"]["cpu_ms"] == pytest.approx(sum(rows[name]["cpu_ms"] for name in bench.STAGES), abs=0.01)
    assert rows["face"]["lock_ms"] is None


def test_a_missing_sampler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = CliRunner().invoke(bench.stages, ["--frames", "10", "--lock"])
    assert result.exit_code == 1
    assert "--lock needs py-spy" in result.output


def test_a_sample_counts_for_the_innermost_stage() -> None:
    samples = (
        "Speaker.frame (mien_bench/stages.py:120);Speaker.face (mien_bench/stages.py:1);"
        "WarpGenerator.animate (mien_generator/face/warp.py:131) 7\n"
        "Speaker.frame (mien_bench/stages.py:124);Pipeline.frame (mien_generator/pipeline.py:120);"
        "TimedSession.encode (mien_bench/stages.py:90);GeneratorSession.encode (mien_generator/session.py:207) 4\n"
        "Speaker.frame (mien_bench/stages.py:124);insert_trace (mien_shared/media/frame_trace.py:90) 3\n"
        "Speaker.frame (mien_bench/stages.py:125);Speaker.publish (mien_bench/stages.py:150) 2\n"
        "_sampled (mien_bench/stages.py:190) 9\n"
    )
    assert bench.samples_by_stage(samples) == {"face": 7, "encode": 4, "publish": 5}
