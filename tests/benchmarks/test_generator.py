from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mien_bench.generator import generator

_ARGUMENTS = ["--size", "64", "--batch", "1", "--batch", "2", "--rounds", "2", "--threads", "1", "--no-peers"]


def test_every_arm_is_measured_beside_the_floor(exported: Path) -> None:
    result = CliRunner().invoke(generator, [*_ARGUMENTS, "--weights", str(exported), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["model"] == "small.safetensors"
    arms = [(row["arm"], row["faces"]) for row in report["figures"]]
    assert arms == [("warp", 1), *((f"onnx {each}", faces) for each in ("float32", "int8") for faces in (1, 2))]
    for row in report["figures"][1:]:
        assert row["floor_ms"] > 0 and row["ms_a_face"] > 0  # which is less is only true of a machine that is idle


def test_the_table_has_a_line_for_every_arm(exported: Path) -> None:
    result = CliRunner().invoke(generator, [*_ARGUMENTS, "--weights", str(exported)])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 7


def test_weights_without_graphs(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.safetensors").write_bytes(exported.read_bytes())
    result = CliRunner().invoke(generator, ["--weights", str(tmp_path / "bare.safetensors")])
    assert result.exit_code == 1
    assert result.stderr == "Error: bare.safetensors has no graphs next to it: make them with `mien model export`\n"
