"""What the network loses of the source at rest comes back wherever the source is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.checkpoint import random_weights
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.occlusion_generator import GeneratorSource, OcclusionAwareGenerator
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

SIZE = 64


@pytest.fixture(scope="module")
def network(small_config: FommConfig) -> OcclusionAwareGenerator:
    weights = random_weights(replace(small_config, pixel_centres=True, source_residual=True))
    network = weights.generator()
    # Everything visible and the background's motion alone, as at rest in a trained network.
    dense = network.dense_motion_network
    torch.nn.init.zeros_(dense.occlusion.weight)
    torch.nn.init.constant_(dense.occlusion.bias, 20.0)
    torch.nn.init.zeros_(dense.mask.weight)
    with torch.no_grad():
        dense.mask.bias[0] = 30.0
    return network


def _keypoints(seed: int) -> KeypointTensors:
    random = np.random.default_rng(seed)
    points = random.uniform(-0.5, 0.5, (NUM_KEYPOINTS, 2)).astype(np.float32)
    jacobians = np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1))
    return KeypointTensors.of([Keypoints(points, jacobians)], torch.device("cpu"))


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_the_source_at_rest_comes_out_as_it_went_in(network: OcclusionAwareGenerator) -> None:
    picture, keypoints = torch.rand(1, 3, SIZE, SIZE), _keypoints(1)
    source = network.prepare(picture, keypoints)
    torch.testing.assert_close(network(source, keypoints).prediction, picture, atol=1e-5, rtol=0)
    without = replace(source, residual=None)
    assert (network(without, keypoints).prediction - picture).abs().mean() > 0.05


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_nothing_comes_back_where_the_source_is_not_visible(network: OcclusionAwareGenerator) -> None:
    source = network.prepare(torch.rand(1, 3, SIZE, SIZE), _keypoints(1))
    occlusion = network.dense_motion_network.occlusion
    torch.nn.init.constant_(occlusion.bias, -20.0)
    try:
        with_residual = network(source, _keypoints(2)).prediction
        torch.testing.assert_close(with_residual, network(replace(source, residual=None), _keypoints(2)).prediction)
    finally:
        torch.nn.init.constant_(occlusion.bias, 20.0)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_a_batch_keeps_each_sources_own_residual(network: OcclusionAwareGenerator) -> None:
    sources = [network.prepare(torch.rand(1, 3, SIZE, SIZE), _keypoints(seed)) for seed in (1, 2)]
    driving = [_keypoints(seed) for seed in (3, 4)]
    together = network(GeneratorSource.stack(sources), KeypointTensors.stack(driving)).prediction
    for index in range(2):
        alone = network(sources[index], driving[index]).prediction
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=0)
