from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training runs on torch")

from mien_training.config import TrainingConfigError, parsed, read_config
from mien_training.generator import Stage
from mien_training.steps import FinetuneConfig, GeneratorConfig

CONFIGS = Path(__file__).parents[2] / "training/configs"

STAGE = {"kind": "joint", "steps": 3, "batch": 2, "size": 64, "learning_rate": 1e-3}


@pytest.mark.parametrize("name", ["generator-cpu.toml", "generator-gpu.toml"])
def test_the_shipped_generator_configurations_are_read(name: str) -> None:
    config = read_config(CONFIGS / name, GeneratorConfig)
    assert [stage.kind for stage in config.stages][:2] == ["appearance", "motion"]
    assert config.stages[-1].kind == "joint"
    assert "reader" in config.pairs.validation


def test_the_shipped_finetuning_configuration_is_read() -> None:
    assert read_config(CONFIGS / "finetune.toml", FinetuneConfig).stage.size == 256


def test_nested_tables_and_whole_numbers_for_rates() -> None:
    stage = parsed(STAGE | {"learning_rate": 1, "losses": {"adversarial": 1}}, Stage, "x.toml")
    assert stage.learning_rate == 1.0 and stage.losses.adversarial == 1.0 and stage.losses.pixels == 10.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"step": 3}, "x.toml: unknown field step; the fields are kind, steps, batch, size, learning_rate, losses"),
        ({"kind": "all"}, "x.toml: kind must be one of appearance, motion, joint, not 'all'"),
        ({"batch": 2.5}, "x.toml: batch must be of type int, not 2.5"),
        ({"batch": True}, "x.toml: batch must be of type int, not True"),
        ({"batch": 0}, "x.toml: batch must be at least 1, not 0"),
        ({"size": 16}, "x.toml: size must be at least 32, not 16"),
        ({"losses": 3}, "x.toml: losses must be a table, not 3"),
        ({"losses": {"pixel": 3}}, "x.toml: losses: unknown field pixel"),
    ],
)
def test_names_what_is_wrong(change: dict[str, object], text: str) -> None:
    with pytest.raises(TrainingConfigError) as caught:
        parsed(STAGE | change, Stage, "x.toml")
    assert str(caught.value).startswith(text)


def test_names_what_is_missing() -> None:
    with pytest.raises(TrainingConfigError, match=r"x\.toml: learning_rate is missing"):
        parsed({name: value for name, value in STAGE.items() if name != "learning_rate"}, Stage, "x.toml")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("a = = 1")
    with pytest.raises(TrainingConfigError, match=r"broken\.toml is not valid TOML"):
        read_config(tmp_path / "broken.toml", GeneratorConfig)
