"""Which tiers the settings come to, and what is said where they cannot run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from mien_generator.face import build
from mien_generator.face.build import BackendUnavailable, portrait_ladder
from mien_generator.face.contract import FacePicture, FaceRequest
from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig
from mien_generator.face.fomm.shapes import tensor_shapes
from mien_generator.face.fomm.weights import StoredWeights, WeightsError
from mien_generator.face.ladder import Rung
from mien_generator.settings import GeneratorSettings
from mien_generator.specimen import draw_speaker, face_of

T = TypeVar("T")

_HOURGLASS = HourglassConfig(block_expansion=8, max_features=24, num_blocks=3)
_SMALL = FommConfig(
    None,
    GeneratorConfig(
        block_expansion=8, max_features=16, num_down_blocks=2, num_bottleneck_blocks=1, dense_motion=_HOURGLASS
    ),
)


def aside(call: Callable[..., T], *args: object) -> T:
    """On a thread of its own, as in the service: ONNX Runtime has the thread that calls it round small numbers to 0."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *args).result()


def settings(**changes: object) -> GeneratorSettings:
    return GeneratorSettings.model_validate({"token_secret": "a secret of thirty-two bytes or more", **changes})


def weights_file(folder: Path) -> Path:
    """A small untrained network in the form in which a wheel carries it, without its graphs."""
    values = np.random.default_rng(0)
    arrays = {
        name: np.abs(values.normal(0, 0.05, shape)).astype(np.float32) + np.float32(name.endswith("running_var"))
        for name, shape in tensor_shapes(_SMALL).items()
    }
    path = folder / "small.safetensors"
    StoredWeights(_SMALL, arrays).write(path)
    return path


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The same with its graphs beside it."""
    pytest.importorskip("onnx", reason="graphs are written with the onnx package")
    pytest.importorskip("onnxruntime", reason="the onnx backend runs on it")
    from mien_generator.face.onnx import files

    path = weights_file(tmp_path)
    files.export(path)
    return path


def test_warp_is_a_ladder_of_one() -> None:
    ladder, fallback = aside(portrait_ladder, settings(face_backend="warp"), 1)
    assert ladder.names == ("warp",)
    assert fallback is None
    assert not ladder.rungs[0].on_device


def test_auto_runs_the_network_on_both_sizes_above_warp(exported: Path) -> None:
    ladder, fallback = aside(portrait_ladder, settings(weights=exported), 1)
    assert ladder.names == ("onnx-384", "onnx-256", "warp")
    assert fallback is None
    assert ladder.shares_cores
    avatar = face_of(draw_speaker())

    def face_on(rung: Rung) -> FacePicture:
        prepared = rung.generator.prepare(avatar)
        return rung.generator.animate([FaceRequest(prepared, avatar.keypoints)])[0]

    for rung, size in zip(ladder.rungs, (384, 256, 384), strict=True):
        assert np.asarray(aside(face_on, rung)).shape == (size, size, 3)
        rung.generator.close()


def test_a_smaller_best_tier(exported: Path) -> None:
    assert aside(portrait_ladder, settings(weights=exported, face_size=256), 1)[0].names == ("onnx-256", "warp")


def test_torch_runs_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the torch backend needs it")
    ladder, _ = aside(portrait_ladder, settings(face_backend="torch", weights=weights_file(tmp_path), face_size=256), 1)
    assert [rung.on_device for rung in ladder.rungs] == [True, False]
    assert ladder.names[0].endswith("-256")


def test_auto_without_weights_or_runtime_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "SHIPPED_WEIGHTS", tmp_path / "none.safetensors")
    ladder, fallback = aside(portrait_ladder, settings(), 1)
    assert ladder.names == ("warp",)
    assert fallback is not None
    assert fallback.reason == "weights"
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    _, fallback = aside(portrait_ladder, settings(weights=weights_file(tmp_path)), 1)
    assert fallback is not None
    assert (fallback.reason, fallback.text) == ("runtime", "onnxruntime is not installed")


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_network_that_was_asked_for_by_name_is_never_replaced(backend: str, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"needs weights, but there is no file none\.safetensors"):
        aside(portrait_ladder, settings(face_backend=backend, weights=tmp_path / "none.safetensors"), 1)


def test_tampered_weights_are_an_error_of_their_own_under_auto_too(exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    data[len(data) // 2] ^= 0xFF
    exported.write_bytes(data)
    with pytest.raises(WeightsError, match=exported.name):
        aside(portrait_ladder, settings(weights=exported), 1)


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("torch", "int8", "the torch backend supports float32, float16 and bfloat16, not int8"),
        ("onnx", "float16", "the onnx backend supports float32 and int8, not float16"),
    ],
)
def test_a_precision_that_a_backend_lacks_is_named(backend: str, precision: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=f"^{message}$"):
        aside(portrait_ladder, settings(face_backend=backend, precision=precision, weights=weights_file(tmp_path)), 1)


def test_a_device_that_is_not_there_is_named(exported: Path) -> None:
    with pytest.raises(BackendUnavailable, match="CUDA"):
        aside(portrait_ladder, settings(face_backend="onnx", device="cuda", weights=exported), 1)
