"""Small models: the whole architecture at a few channels, and one with its graphs beside it as Mien ships them.

The fixtures are named in the conftest.py of every folder whose tests want them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mien_generator.face.contract import AvatarFace
from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig, KeypointDetectorConfig
from mien_generator.face.fomm.shapes import tensor_shapes
from mien_generator.face.fomm.weights import StoredWeights
from mien_generator.face.onnx import calibration, files
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

SIZE = 128


def random_arrays(config: FommConfig, seed: int) -> StoredWeights:
    """Untrained weights as torch would begin with them, without torch; normalisations are not the identity."""
    values = np.random.default_rng(seed)
    arrays = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("running_var"):
            array = values.uniform(0.5, 1.5, shape)
        elif name.endswith("norm.weight") or (".norm" in name and name.endswith(".weight")):
            array = values.uniform(0.8, 1.2, shape)
        elif len(shape) == 4:
            array = values.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            array = values.normal(0, 0.1, shape)
        arrays[name] = array.astype(np.float32)
    return StoredWeights(config, arrays)


def face(seed: int, size: int = SIZE) -> AvatarFace:
    """A picture of soft patches, with keypoints that have Jacobians of their own."""
    values = np.random.default_rng(seed)
    patches = values.integers(0, 256, (size // 8, size // 8, 3))
    return AvatarFace(patches.repeat(8, 0).repeat(8, 1).astype(np.uint8), keypoints(seed))


def keypoints(seed: int) -> Keypoints:
    values = np.random.default_rng(seed)
    points = values.uniform(-0.6, 0.6, (NUM_KEYPOINTS, 2)).astype(np.float32)
    jacobians = np.eye(2) + values.normal(0, 0.2, (NUM_KEYPOINTS, 2, 2))
    return Keypoints(points, jacobians.astype(np.float32))


def moved(source: Keypoints, seed: int) -> Keypoints:
    values = np.random.default_rng(seed)
    points = source.points + values.normal(0, 0.05, source.points.shape)
    jacobians = source.jacobians + values.normal(0, 0.05, source.jacobians.shape)
    return Keypoints(points.astype(np.float32), jacobians.astype(np.float32))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """These pictures are too small to share out: on a busy machine torch's second thread costs half the tests' time."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_config() -> FommConfig:
    """The whole architecture at a few channels: pictures of 64, 128, ... pixels."""
    return FommConfig(
        keypoint_detector=KeypointDetectorConfig(block_expansion=4, max_features=16, num_blocks=2),
        generator=GeneratorConfig(
            block_expansion=8,
            max_features=16,
            num_down_blocks=2,
            num_bottleneck_blocks=2,
            dense_motion=HourglassConfig(block_expansion=8, max_features=24, num_blocks=3),
        ),
    )


@pytest.fixture(scope="session")
def own_config(small_config: FommConfig) -> FommConfig:
    """As Mien's own weights are configured: keypoints come from elsewhere, the source's detail is moved along."""
    return replace(small_config, keypoint_detector=None, pixel_centres=True, source_residual=True)


@pytest.fixture(scope="session")
def exported(own_config: FommConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model; tests that change its files copy them first."""
    pytest.importorskip("onnx", reason="graphs are written with the onnx package")
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    weights = random_arrays(own_config, 0).half()
    weights.write(path)
    clips = [
        calibration.Clip(face(seed), [moved(face(seed).keypoints, seed + each) for each in range(2)]) for seed in (1, 2)
    ]
    files.write_ranges(path, calibration.calibrate(weights, clips, size=SIZE, threads=1))
    files.export(path)
    return path
