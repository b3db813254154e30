"""All four commands at toy size: they do what a full run does, in two minutes instead of a night."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training runs on torch")

from mien_generator.face.fomm.checkpoint import read_weights
from mien_training.__main__ import main
from mien_training.generator import MIEN_HALF

PAIRS = """
[pairs]
validation = ["held"]
weights = { clip = 1.0, still = 0.5 }
"""
DISTIL = """
validation = ["held"]
steps = 4
pairs = 4
nothing = 2
size = 64
stored = 96
report = 2
save = 2
"""
GENERATOR = (
    PAIRS
    + """
[schedule]
report = 1
save = 1
sheet = 2

[[stages]]
kind = "appearance"
steps = 2
batch = 2
size = 64
learning_rate = 1e-3

[[stages]]
kind = "motion"
steps = 2
batch = 2
size = 128
learning_rate = 1e-3

[[stages]]
kind = "joint"
steps = 2
batch = 1
size = 128
learning_rate = 1e-4
"""
)
FINETUNE = (
    "report = 1\nsave = 2\n"
    + PAIRS
    + """
[stage]
steps = 2
batch = 1
size = 128
learning_rate = 1e-5
"""
)
PRUNE = "steps_a_cut = 2\nfinal_steps = 2\nmacs = 1_000_000_000\nparameters = 10_000_000\n\n[distil]" + DISTIL


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_four_steps_one_after_the_other(tmp_path: Path, labelled: Path) -> None:
    def run(step: str, config: str, *more: str) -> Path:
        (tmp_path / f"{step}.toml").write_text(config)
        out = tmp_path / step
        arguments = [step, "--config", str(tmp_path / f"{step}.toml"), "--data", str(labelled), "--out", str(out)]
        assert main([*arguments, "--device", "cpu", "--threads", "1", *more]) == 0
        return out

    distilled = run("distil", DISTIL)
    pruned = run("prune", PRUNE, "--encoder", str(distilled))
    assert (pruned / "encoder.onnx").stat().st_size < 5_000_000
    generated = run("generator", GENERATOR)
    weights = read_weights(generated / "fomm-half.safetensors")
    assert weights.config.generator == MIEN_HALF.generator and weights.config.keypoint_detector is None
    finetuned = run(
        "finetune", FINETUNE, "--encoder", str(pruned), "--generator", str(generated / "fomm-half.safetensors")
    )
    assert read_weights(finetuned / "fomm-half.safetensors").sha256 != weights.sha256
    assert (finetuned / "encoder.onnx").read_bytes() != (pruned / "encoder.onnx").read_bytes()
    for folder in (distilled, generated, finetuned):
        assert list(folder.glob("curves-*.csv")) and list(folder.glob("sheet-*.png"))


def test_a_wrong_configuration_ends_with_one_line(
    tmp_path: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.toml").write_text(GENERATOR.replace('kind = "motion"', 'kind = "dance"'))
    arguments = ["generator", "--config", str(tmp_path / "g.toml"), "--data", str(labelled)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert said == "mien_training: g.toml: stages[1]: kind must be one of appearance, motion, joint, not 'dance'\n"


def test_finetuning_wants_an_encoders_run(tmp_path: Path, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mien_generator.face.fomm.checkpoint import random_weights, write_weights

    (tmp_path / "f.toml").write_text(FINETUNE)
    (tmp_path / "empty").mkdir()
    write_weights(random_weights(MIEN_HALF).half(), tmp_path / "g.safetensors")
    arguments = ["finetune", "--config", str(tmp_path / "f.toml"), "--data", str(labelled), "--device", "cpu"]
    paths = ["--encoder", str(tmp_path / "empty"), "--generator", str(tmp_path / "g.safetensors")]
    assert main([*arguments, "--out", str(tmp_path / "run"), *paths]) == 1
    assert capsys.readouterr().err == "mien_training: empty holds no encoder run (step 1 or 2)\n"
