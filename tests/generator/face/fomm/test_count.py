"""The figures of the ultra-lightweight paper, table 1."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, ConfigError, FommConfig
from mien_generator.face.fomm.count import count
from mien_generator.face.fomm.shapes import tensor_shapes

#: Tensors that no training changes: statistics that it measures, and the kernel of the blur.
_NOT_TRAINED = (".running_mean", ".running_var", ".down.weight")


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
    assert round(counted.macs_per_avatar / 1e9, 2) == 6.13
    assert round(counted.macs_per_frame / 1e9, 2) == 25.29


def test_a_source_residual_costs_an_avatar_one_frame_and_no_parameter() -> None:
    plain = replace(HALF_WIDTH, pixel_centres=True)
    without, counted = count(plain, 384), count(replace(plain, source_residual=True), 384)
    assert without.at_rest is None
    assert counted.at_rest is not None
    assert counted.at_rest.macs == counted.macs_per_avatar - without.macs_per_avatar == counted.macs_per_frame
    assert (counted.macs, counted.parameters) == (without.macs, without.parameters)


def test_parts_add_up_to_every_parameter(small_config: FommConfig) -> None:
    counted = count(small_config, 128)
    found = {"generator": counted.parameters, "kp_detector": getattr(counted.keypoint_detector, "parameters", None)}
    for network, parameters in found.items():
        shapes = {name: shape for name, shape in tensor_shapes(small_config).items() if name.startswith(network)}
        assert parameters == sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(_NOT_TRAINED))


def test_a_generator_alone_has_no_detector_to_count(small_config: FommConfig) -> None:
    assert count(replace(small_config, keypoint_detector=None), 64).keypoint_detector is None


def test_work_grows_with_the_area_and_parameters_do_not(small_config: FommConfig) -> None:
    small, large = count(small_config, 64), count(small_config, 128)
    assert large.macs == 4 * small.macs
    assert large.parameters == small.parameters


def test_a_size_that_does_not_fit() -> None:
    with pytest.raises(ConfigError):
        count(HALF_WIDTH, 300)
