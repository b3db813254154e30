"""The folded network against the network as published, float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.checkpoint import random_weights
from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig
from mien_generator.face.fomm.device.blocks import Doubling, Folding
from mien_generator.face.fomm.device.network import FoldedGenerator, FoldedSource, SourceLayout, channel_multiple
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_shared.keypoints import NUM_KEYPOINTS

SIZE = 64


def some_keypoints(random: np.random.Generator, count: int) -> KeypointTensors:
    points = random.uniform(-0.5, 0.5, (count, NUM_KEYPOINTS, 2))
    jacobians = np.eye(2) + random.normal(0, 0.1, (count, NUM_KEYPOINTS, 2, 2))
    return KeypointTensors(torch.from_numpy(points).float(), torch.from_numpy(jacobians).float())


def as_rows(*keypoints: KeypointTensors) -> torch.Tensor:
    """(B, n, K, 6): as the folded network takes them."""
    return torch.stack([torch.cat([each.points, each.jacobians.flatten(2)], dim=-1) for each in keypoints], dim=1)


def folded_prediction(
    network: OcclusionAwareGenerator,
    config: FommConfig,
    folding: Folding,
    picture: torch.Tensor,
    source: KeypointTensors,
    driving: KeypointTensors,
) -> torch.Tensor:
    layout = SourceLayout.of(config, SIZE)
    generator = FoldedGenerator(network, config, layout, folding)
    rows = torch.zeros(len(picture), layout.numbers)
    features, small, residual = layout.parts(rows)
    for part, made in zip((features, small), FoldedSource(network, folding)(picture), strict=True):
        part.copy_(made)
    if config.source_residual:
        residual.copy_(picture - generator(rows, as_rows(source, source)))
    prediction: torch.Tensor = generator(rows, as_rows(source, driving))
    return prediction


@pytest.mark.parametrize("doubling", ["nearest", "phases", "transposed"])
@pytest.mark.parametrize("channel_multiple", [1, 8])
def test_folding_changes_no_picture(small_config: FommConfig, doubling: Doubling, channel_multiple: int) -> None:
    check_against_published(small_config, Folding(doubling, channel_multiple=channel_multiple))


@pytest.mark.parametrize("source_residual", [False, True])
def test_folding_follows_the_configuration(small_config: FommConfig, source_residual: bool) -> None:
    config = replace(small_config, pixel_centres=True, source_residual=source_residual)
    check_against_published(config, Folding(channel_multiple=8))


def test_dense_motion_at_another_scale_than_the_features() -> None:
    hourglass = HourglassConfig(block_expansion=8, max_features=16, num_blocks=2, scale_factor=0.5)
    config = FommConfig(None, GeneratorConfig(8, 16, 2, 1, hourglass), pixel_centres=True, source_residual=True)
    check_against_published(config, Folding())


def check_against_published(config: FommConfig, folding: Folding) -> None:
    random = np.random.default_rng(1)
    network = random_weights(config).generator()
    picture = torch.from_numpy(random.random((2, 3, SIZE, SIZE), np.float32))
    source, driving = some_keypoints(random, 2), some_keypoints(random, 2)
    with torch.inference_mode():
        expected = network(network.prepare(picture, source), driving).prediction
        made = folded_prediction(network, config, folding, picture, source, driving)
    assert expected.std() > 1e-2, "an untrained network whose picture says nothing would compare nothing"
    assert (made - expected).abs().max().item() < 1e-4


def test_channels_are_padded_only_where_every_width_allows_it(small_config: FommConfig) -> None:
    assert channel_multiple(small_config) == 8
    narrow = replace(small_config, generator=replace(small_config.generator, block_expansion=4))
    assert channel_multiple(narrow) == 1
