"""Stage by stage against what the published code computes (made in eval mode, float32)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.checkpoint import read_checkpoint
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.first_order import sample
from mien_generator.face.fomm.occlusion_generator import deformation_at

#: Rounding of float32 through the whole network; any other align_corners, padding or order of channels is far above.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vectors(published: Path) -> dict[str, torch.Tensor]:
    with np.load(published / "tiny_vectors.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(scope="module")
def computed(published: Path, vectors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    config = FommConfig.from_json((published / "tiny_config.json").read_bytes())
    weights = read_checkpoint(published / "tiny.pth.tar", config)
    detector, generator = weights.keypoint_detector(), weights.generator()
    with torch.inference_mode():
        source, driving = detector(vectors["source"]), detector(vectors["driving"])
        face = generator(generator.prepare(vectors["source"], source), driving)
        height, width = vectors["source"].shape[2:]
        deformed = sample(vectors["source"], deformation_at(face.motion, height, width))
    return {
        "kp_source_value": source.points,
        "kp_source_jacobian": source.jacobians,
        "kp_driving_value": driving.points,
        "kp_driving_jacobian": driving.jacobians,
        "mask": face.motion.mask,
        "occlusion_map": face.motion.occlusion_map,
        "deformed": deformed,
        "prediction": face.prediction,
    }


@pytest.mark.parametrize(
    "stage",
    [
        "kp_source_value",
        "kp_source_jacobian",
        "kp_driving_value",
        "kp_driving_jacobian",
        "mask",
        "occlusion_map",
        "deformed",
        "prediction",
    ],
)
def test_stage_matches_the_published_code(
    stage: str, computed: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]
) -> None:
    assert computed[stage].shape == vectors[stage].shape
    assert (computed[stage] - vectors[stage]).abs().max().item() < TOLERANCE


def test_every_published_stage_is_compared(computed: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]) -> None:
    assert vectors.keys() - computed.keys() == {"source", "driving"}
