"""Graphs with their weights inside, in a session that knows nothing of Mien (docs/decisions/0009)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from small_models import face, moved, random_arrays

from mien_evaluation.model_cli import model
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.onnx.generator import OnnxGenerator
from mien_shared.keypoints import Keypoints

SIZE = 64


@pytest.fixture(params=["as published", "as Mien's own"])
def weights(request: pytest.FixtureRequest, own_config: FommConfig, tmp_path: Path) -> Path:
    own = request.param == "as Mien's own"
    path = tmp_path / "small.safetensors"
    random_arrays(replace(own_config, pixel_centres=own, source_residual=own), 0).half().write(path)
    return path


def _export(weights: Path, folder: Path) -> list[Path]:
    result = CliRunner().invoke(model, ["export", str(weights), "--standalone", str(folder)])
    assert result.exit_code == 0, result.output
    return [Path(line.rpartition(": ")[0]) for line in result.output.splitlines()]


def _bare(file: Path, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    given = {name: value for name, value in inputs.items() if name in wanted}
    return dict(zip(names, session.run(names, given), strict=True))


def _served(folder: Path, avatar: AvatarFace, driving: Sequence[Keypoints], *, residual: bool) -> RgbArray:
    """Frames as somebody makes them who has read the decision's table and has the two files, in one batch."""
    prepare, animate = folder / "small-prepare.onnx", folder / "small-animate.onnx"
    points, jacobians = avatar.keypoints.points[None], avatar.keypoints.jacobians[None]
    inputs = _bare(prepare, {"rgb": avatar.rgb[None], "points": points})
    inputs |= {"source_points": points, "source_jacobians": jacobians}
    if residual:
        inputs["residual"] = np.zeros((1, 3, SIZE, SIZE), np.float32)
        at_rest = _bare(animate, inputs | {"driving_points": points, "driving_jacobians": jacobians})["rgb"]
        inputs["residual"] = (avatar.rgb[None].astype(np.float32) - at_rest).transpose(0, 3, 1, 2) / 255
    batch = {name: value.repeat(len(driving), axis=0) for name, value in inputs.items()}
    batch["driving_points"] = np.stack([each.points for each in driving])
    batch["driving_jacobians"] = np.stack([each.jacobians for each in driving])
    rgb: RgbArray = _bare(animate, batch)["rgb"]
    return rgb


def test_a_bare_session_makes_our_faces(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    written = _export(weights, folder)
    assert {"small-prepare.onnx", "small-animate.onnx"} == {each.name for each in folder.iterdir()}
    assert {file.parent for file in written} == {weights.parent, folder}
    generator = OnnxGenerator.load(weights, size=SIZE, precision="float32", threads=1)
    avatar = face(1, SIZE)
    driving = [moved(avatar.keypoints, seed) for seed in range(2)]
    prepared = generator.prepare(avatar)
    ours = [np.asarray(each) for each in generator.animate([FaceRequest(prepared, each) for each in driving])]
    # Nothing of ours is left that they could be taken from.
    for file in weights.parent.glob("small*"):
        file.unlink()
    theirs = _served(folder, avatar, driving, residual="residual" in prepared.arrays)
    apart = np.abs(np.stack(ours).astype(int) - theirs)
    assert apart.max() <= 1, "but for a value that rounds to the other side"
    assert apart.mean() < 0.01
    assert theirs.std() > 5, "a flat picture would prove nothing"


def test_files_hold_their_weights_and_standard_operators_alone(weights: Path, tmp_path: Path) -> None:
    _export(weights, tmp_path / "elsewhere")
    for part in ("prepare", "animate"):
        read = onnx.load(tmp_path / "elsewhere" / f"small-{part}.onnx", load_external_data=False)
        onnx.checker.check_model(read, full_check=True)
        assert [(each.domain, each.version) for each in read.opset_import] == [("", 20)]
        assert {node.domain for node in read.graph.node} == {""}
        assert not any(each.data_location == onnx.TensorProto.EXTERNAL for each in read.graph.initializer)
        assert {each.key for each in read.metadata_props} == {"format", "format_version", "config", "weights_sha256"}


def test_the_folder_of_the_weights_may_take_them_too(weights: Path) -> None:
    written = _export(weights, weights.parent)
    assert len({file.name for file in written}) == len(written)
    assert OnnxGenerator.load(weights, size=SIZE, threads=1).size == SIZE
