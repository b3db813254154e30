from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.checkpoint import random_weights, read_weights, write_weights
from mien_generator.face.fomm.cli import model
from mien_generator.face.fomm.config import FommConfig


@pytest.fixture
def weights(small_config: FommConfig, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write_weights(random_weights(small_config), path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "source.png"
    waves = 127 + 100 * np.outer(np.sin(np.arange(300) / 8), np.sin(np.arange(400) / 8))
    cv2.imwrite(str(path), np.stack([waves.astype(np.uint8)] * 3, axis=-1))
    return path


def _mien_model(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


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
        "    of it per frame                         25.29 G",
        "    that, rewritten (onnx)                  22.40 G",
        "  keypoint detector (apart)   picture        2.92 G       14.22 M",
    ]
    assert encoder.startswith("Encoder K, 256x256: ")


def test_info_counts_a_weights_file(weights: Path, small_config: FommConfig) -> None:
    counted = json.loads(_mien_model("info", "--size", 64, "--weights", weights, "--json").stdout)
    assert counted["model"] == "small.safetensors"
    assert counted["parameters"] == sum(p.numel() for p in read_weights(weights).generator().parameters())


def test_info_at_a_size_that_does_not_fit() -> None:
    result = _mien_model("info", "--size", 300)
    assert result.exit_code == 1
    assert result.stderr == "Error: this model makes pictures whose side is a multiple of 128, not 300\n"


# --- without torch ----------------------------------------------------------------------------------------------------


def test_the_command_group_imports_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom mien_generator.face.fomm.cli import model\nmodel(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "animate" in done.stdout


def test_a_command_that_needs_torch_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path
) -> None:
    _without_torch(monkeypatch)
    out = tmp_path / "out"
    for command in (
        ["info"],
        ["import", weights, "--out", out],
    ):
        result = _mien_model(*command)
        assert result.exit_code == 1
        assert result.stderr == "Error: this command needs torch: pip install 'mien-generator[torch]'\n"
    assert not out.exists()


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_config", [True, False], ids=["config given", "config inferred"])
def test_import_writes_weights_that_load(small_config: FommConfig, tmp_path: Path, with_config: bool) -> None:
    weights = random_weights(small_config)
    states = {"generator": weights.generator().state_dict(), "kp_detector": weights.keypoint_detector().state_dict()}
    torch.save(states, tmp_path / "vox.pth.tar")
    (tmp_path / "vox.json").write_text(small_config.to_json())
    config = ["--config", tmp_path / "vox.json"] if with_config else []
    out = tmp_path / "vox.safetensors"
    result = _mien_model("import", tmp_path / "vox.pth.tar", *config, "--out", out)
    assert result.exit_code == 0, result.output
    assert read_weights(out).sha256 == weights.sha256
    assert result.stdout.endswith(f"sha256 {weights.sha256}\n")


def test_import_refuses_what_is_no_checkpoint(picture: Path, tmp_path: Path) -> None:
    result = _mien_model("import", picture, "--out", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr == "Error: source.png is not a checkpoint that can be read without running code\n"
    assert not (tmp_path / "out.safetensors").exists()


def test_import_refuses_a_configuration_that_is_none(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    result = _mien_model("import", picture, "--config", tmp_path / "c.json", "--out", tmp_path / "out.safetensors")
    assert result.stderr == "Error: model configuration: common_params is missing\n"
