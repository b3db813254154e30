from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, ConfigError, FommConfig


def _published() -> dict[str, Any]:
    return json.loads(FULL_WIDTH.to_json())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "config", [HALF_WIDTH, FULL_WIDTH, replace(HALF_WIDTH, pixel_centres=True, source_residual=True)]
)
def test_json_round_trip(config: FommConfig) -> None:
    assert FommConfig.from_json(config.to_json()) == config


def test_reads_the_published_nesting() -> None:
    assert FommConfig.from_json(json.dumps({"dataset_params": {}, "model_params": _published()})) == FULL_WIDTH


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("common_params", None, "model configuration: common_params is missing"),
        ("common_params", 3, "model configuration: common_params is not an object"),
        ("common_params.num_kp", None, "model configuration: common_params.num_kp is missing"),
        (
            "common_params.num_kp",
            "ten",
            "model configuration: common_params.num_kp must be a whole number above 0, not 'ten'",
        ),
        (
            "common_params.estimate_jacobian",
            False,
            "model configuration: common_params.estimate_jacobian must be True, not False",
        ),
        (
            "generator_params.estimate_occlusion_map",
            None,
            "model configuration: generator_params.estimate_occlusion_map must be True, not False",
        ),
        (
            "generator_params.dense_motion_params.num_blocks",
            0,
            "model configuration: generator_params.dense_motion_params.num_blocks"
            " must be a whole number above 0, not 0",
        ),
        (
            "kp_detector_params.scale_factor",
            0.3,
            "model configuration: kp_detector_params.scale_factor must be 1/n, not 0.3",
        ),
        (
            "kp_detector_params.temperature",
            0,
            "model configuration: kp_detector_params.temperature must be a number in (0, 1], not 0",
        ),
    ],
)
def test_names_the_field_that_is_wrong(path: str, value: object, text: str) -> None:
    tree = _published()
    *parents, last = path.split(".")
    section = tree
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[last]
    else:
        section[last] = value
    with pytest.raises(ConfigError) as error:
        FommConfig.from_json(json.dumps(tree))
    assert str(error.value) == text


def test_text_that_is_no_json() -> None:
    with pytest.raises(ConfigError, match=r"^the model configuration is not JSON: "):
        FommConfig.from_json("model_params:\n  num_kp: 10")


def test_sizes_that_pass_through_every_network() -> None:
    for size in (128, 256, 384):
        HALF_WIDTH.check_size(size)
    for size in (0, 300, 448):
        with pytest.raises(ConfigError) as error:
            HALF_WIDTH.check_size(size)
        assert str(error.value) == f"the picture size of this model must be a multiple of 128, not {size}"


def test_a_residual_wants_pixel_centres() -> None:
    with pytest.raises(ConfigError, match="source_residual needs pixel_centres"):
        replace(HALF_WIDTH, source_residual=True)
