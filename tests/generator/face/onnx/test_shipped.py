"""The model that a wheel carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_models import face

from mien_generator.face.build import SHIPPED_WEIGHTS
from mien_generator.face.contract import FaceRequest
from mien_generator.face.onnx import files
from mien_generator.face.onnx.generator import OnnxGenerator

pytestmark = pytest.mark.skipif(not SHIPPED_WEIGHTS.is_file(), reason="no weights are in this checkout")


def test_it_is_small_enough_to_ship() -> None:
    # The encoder's 0.7 MB come on top.
    assert sum(file.stat().st_size for file in SHIPPED_WEIGHTS.parent.iterdir() if file.is_file()) < 39e6


def test_its_graphs_are_those_that_this_code_writes(tmp_path: Path) -> None:
    for name in (SHIPPED_WEIGHTS.name, f"{SHIPPED_WEIGHTS.stem}.ranges.json"):
        shutil.copy(SHIPPED_WEIGHTS.with_name(name), tmp_path)
    files.export(tmp_path / SHIPPED_WEIGHTS.name)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == SHIPPED_WEIGHTS.with_name(file.name).read_bytes(), f"{file.name}: export again"


def test_it_runs_in_8_bits_and_a_face_at_rest_stays_one() -> None:
    generator = OnnxGenerator.load(SHIPPED_WEIGHTS, size=256, threads=1)
    assert generator.precision == "int8"
    avatar = face(1, 256)
    (made,) = generator.animate([FaceRequest(generator.prepare(avatar), avatar.keypoints)])
    # What it takes to be hidden it paints itself, on discs as well: two levels here, less on a face.
    assert np.abs(np.asarray(made, float) - avatar.rgb).mean() < 4
