"""What the tests of FOMM share: a small model, and the published code's own output where the data is to hand."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig, KeypointDetectorConfig

PUBLISHED = Path(__file__).parents[4] / "shared/data/fomm"


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
def published() -> Path:
    """The folder with a checkpoint in the published format and what the published code computes with it."""
    if not (PUBLISHED / "tiny_vectors.npz").exists():
        pytest.skip("shared/data/fomm is not beside the repository: no published vectors to compare with")
    return PUBLISHED
