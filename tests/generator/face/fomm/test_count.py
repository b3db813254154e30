"""The figures of the ultra-lightweight paper, table 1, counted on the modules that run."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

from mien_generator.face.fomm.checkpoint import random_weights
from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, ConfigError, FommConfig
from mien_generator.face.fomm.count import count


@pytest.mark.parametrize(
    ("config", "gmac", "mparameters"), [(HALF_WIDTH, 31.42, 16.17), (FULL_WIDTH, 120.70, 45.58)], ids=["half", "full"]
)
def test_published_figures(config: FommConfig, gmac: float, mparameters: float) -> None:
    counted = count(config, 384)
    assert round(counted.macs / 1e9, 2) == gmac
    assert round(counted.parameters / 1e6, 2) == mparameters


def test_what_the_avatar_pays_once() -> None:
    counted = count(HALF_WIDTH, 384)
    assert [(part.name, part.per) for part in counted.generator] == [
        ("source features", "avatar"),
        ("dense motion", "frame"),
        ("bottleneck and up blocks", "frame"),
    ]
    assert round((counted.macs - counted.macs_per_frame) / 1e9, 2) == 6.13
    assert round(counted.macs_per_frame / 1e9, 2) == 25.29


def test_parts_add_up_to_every_parameter(small_config: FommConfig) -> None:
    weights, counted = random_weights(small_config), count(small_config, 128)
    assert counted.parameters == sum(tensor.numel() for tensor in weights.generator().parameters())
    assert counted.keypoint_detector is not None
    assert counted.keypoint_detector.parameters == sum(
        tensor.numel() for tensor in weights.keypoint_detector().parameters()
    )


def test_work_grows_with_the_area_and_parameters_do_not(small_config: FommConfig) -> None:
    small, large = count(small_config, 64), count(small_config, 128)
    assert large.macs == 4 * small.macs
    assert large.parameters == small.parameters


def test_a_size_that_does_not_fit() -> None:
    with pytest.raises(ConfigError):
        count(HALF_WIDTH, 300)
