from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mien_evaluation.model_cli import model
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.count import count
from mien_generator.face.fomm.shapes import blank_arrays
from mien_generator.face.fomm.weights import StoredWeights


@pytest.fixture
def weights(small_config: FommConfig, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    StoredWeights(small_config, blank_arrays(small_config)).write(path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "source.png"
    waves = 127 + 100 * np.outer(np.sin(np.arange(300) / 8), np.sin(np.arange(400) / 8))
    cv2.imwrite(str(path), np.stack([waves.astype(np.uint8)] * 3, axis=-1))
    return path


def _mien_model(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


# --- info -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "gmac", "mparameters"), [("half", 31.42, 16.17), ("full", 120.70, 45.58)], ids=["half", "full"]
)
def test_info_json_gives_the_published_figures(width: str, gmac: float, mparameters: float) -> None:
    result = _mien_model("info", "--size", 384, "--width", width, "--json")
    assert result.exit_code == 0
    counted = json.loads(result.stdout)
    assert (counted["gmac"], counted["mparameters"]) == (gmac, mparameters)
    assert counted["macs"] == counted["macs_per_avatar"] + counted["macs_per_frame"]
    assert counted["macs"] == sum(part["macs"] for part in counted["parts"])
    assert counted["macs_per_frame_rewritten"] < counted["macs_per_frame"]
    assert counted["keypoint_detector"]["macs"] > 0
    assert counted["encoder"].keys() == {"macs", "parameters", "mmac", "mparameters", "bytes", "sha256"}


def test_info_table() -> None:
    *table, encoder = _mien_model("info").stdout.splitlines()
    assert table == [
        "First Order Motion Model, half width, 384x384",
        "  part                        once per          MAC    parameters",
        "  source features             avatar         6.13 G        0.10 M",
        "  dense motion                frame          2.85 G       14.20 M",
        "  bottleneck and up blocks    frame         22.44 G        1.87 M",
        "  generator                                 31.42 G       16.17 M",
        "    per frame                               25.29 G",
        "    per frame, onnx backend                 22.40 G",
        "  keypoint detector (extra)   picture        2.92 G       14.22 M",
    ]
    assert encoder.startswith("Encoder K, 256x256: ")


def test_info_counts_a_weights_file(weights: Path, small_config: FommConfig) -> None:
    counted = json.loads(_mien_model("info", "--size", 64, "--weights", weights, "--json").stdout)
    assert counted["model"] == "small.safetensors"
    assert counted["macs"] == count(small_config, 64).macs
    assert counted["parameters"] == count(small_config, 64).parameters


def test_info_tells_what_a_source_residual_costs_apart(small_config: FommConfig, tmp_path: Path) -> None:
    own = replace(small_config, keypoint_detector=None, pixel_centres=True, source_residual=True)
    path = tmp_path / "own.safetensors"
    StoredWeights(own, blank_arrays(own)).write(path)
    counted = json.loads(_mien_model("info", "--size", 64, "--weights", path, "--json").stdout)
    assert counted["picture_at_rest"]["macs"] == counted["macs_per_frame"]
    assert counted["macs_per_avatar"] == counted["parts"][0]["macs"] + counted["macs_per_frame"]
    assert counted["macs"] == sum(part["macs"] for part in counted["parts"])
    *_, last, _encoder = _mien_model("info", "--size", 64, "--weights", path).stdout.splitlines()
    assert last == "  picture at rest (extra)     avatar         0.03 G"


def test_info_at_a_size_that_does_not_fit() -> None:
    result = _mien_model("info", "--size", 300)
    assert result.exit_code == 1
    assert result.stderr == "Error: the picture size of this model must be a multiple of 128, not 300\n"


# --- without torch ----------------------------------------------------------------------------------------------------


def _on_the_default_install(*arguments: object) -> str:
    """What the command prints where neither torch nor onnx can be imported."""
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None)\n"
        f"from mien_evaluation.model_cli import model\nmodel({[str(argument) for argument in arguments]!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_group_imports_without_torch() -> None:
    assert "animate" in _on_the_default_install("--help")


def test_info_runs_without_torch(weights: Path) -> None:
    counted = json.loads(_on_the_default_install("info", "--width", "full", "--json"))
    assert (counted["gmac"], counted["mparameters"]) == (120.70, 45.58)
    assert _on_the_default_install("info", "--size", 64, "--weights", weights).startswith(
        "First Order Motion Model, small.safetensors, 64x64\n"
    )


def test_a_command_that_needs_torch_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = _mien_model("import", weights, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == "Error: this command needs torch: pip install 'mien-generator[torch]'\n"
    assert not (tmp_path / "out").exists()


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_config", [True, False], ids=["config given", "config inferred"])
def test_import_writes_weights_that_load(small_config: FommConfig, tmp_path: Path, with_config: bool) -> None:
    torch = pytest.importorskip("torch", reason="checkpoints are torch's")
    from mien_generator.face.fomm.checkpoint import random_weights

    weights = random_weights(small_config)
    states = {"generator": weights.generator().state_dict(), "kp_detector": weights.keypoint_detector().state_dict()}
    torch.save(states, tmp_path / "vox.pth.tar")
    (tmp_path / "vox.json").write_text(small_config.to_json())
    config = ["--config", tmp_path / "vox.json"] if with_config else []
    out = tmp_path / "vox.safetensors"
    result = _mien_model("import", tmp_path / "vox.pth.tar", *config, "--out", out)
    assert result.exit_code == 0, result.output
    assert StoredWeights.read(out).sha256 == weights.sha256
    assert result.stdout.endswith(f"sha256 {weights.sha256}\n")


def test_import_refuses_what_is_no_checkpoint(picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are torch's")
    result = _mien_model("import", picture, "--out", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr == "Error: source.png is not a checkpoint that can be read without running code\n"
    assert not (tmp_path / "out.safetensors").exists()


def test_import_refuses_a_configuration_that_is_none(picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints are torch's")
    (tmp_path / "c.json").write_text("{}")
    result = _mien_model("import", picture, "--config", tmp_path / "c.json", "--out", tmp_path / "out.safetensors")
    assert result.stderr == "Error: model configuration: common_params is missing\n"
