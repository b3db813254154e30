from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import SIZE, face, moved

from mien_generator.face.contract import FaceRequest
from mien_generator.face.fomm.config import ConfigError
from mien_generator.face.fomm.weights import MismatchedWeights
from mien_generator.face.onnx.files import ModelFiles
from mien_generator.face.onnx.generator import OnnxGenerator
from mien_generator.face.onnx.sessions import Network, ProviderMissing


@pytest.fixture(scope="module", params=["float32", "int8"])
def generator(exported: Path, request: pytest.FixtureRequest) -> OnnxGenerator:
    return OnnxGenerator.load(exported, size=SIZE, precision=request.param, threads=1)


def test_a_face_is_rgb_bytes_of_the_generators_size(generator: OnnxGenerator) -> None:
    avatar = face(1, 96)  # crops come at any size
    prepared = generator.prepare(avatar)
    assert prepared.size == generator.size == SIZE
    (made,) = generator.animate([FaceRequest(prepared, avatar.keypoints)])
    assert isinstance(made, np.ndarray)
    assert made.dtype == np.uint8
    assert made.shape == (SIZE, SIZE, 3)


def test_faces_of_different_avatars_are_what_each_would_be_alone(generator: OnnxGenerator) -> None:
    avatars = [face(seed) for seed in range(3)]
    requests = [
        FaceRequest(generator.prepare(avatar), moved(avatar.keypoints, seed)) for seed, avatar in enumerate(avatars)
    ]
    together = generator.animate(requests)
    for request, made in zip(requests, together, strict=True):
        (alone,) = generator.animate([request])
        np.testing.assert_array_equal(made, alone)
    first, second = (np.asarray(made) for made in together[:2])
    assert not np.array_equal(first, second)


def test_one_run_makes_a_whole_batch(exported: Path) -> None:
    """As on a device, which takes all faces at once."""
    network = Network.open(ModelFiles.read(exported), precision="float32", threads=1)
    one_by_one = OnnxGenerator(network, size=SIZE)
    at_once = OnnxGenerator(replace(network, device="cuda"), size=SIZE)
    requests = [FaceRequest(one_by_one.prepare(face(seed)), moved(face(seed).keypoints, seed)) for seed in range(3)]
    for alone, together in zip(one_by_one.animate(requests), at_once.animate(requests), strict=True):
        assert np.abs(np.asarray(alone, int) - np.asarray(together, int)).max() <= 1


def test_nothing_to_do_makes_nothing(generator: OnnxGenerator) -> None:
    assert generator.animate([]) == []


def test_sizes_share_one_network(exported: Path) -> None:
    network = Network.open(ModelFiles.read(exported), threads=1)
    small, large = OnnxGenerator(network, size=64), OnnxGenerator(network, size=SIZE)
    avatar = face(1)
    (made,) = small.animate([FaceRequest(small.prepare(avatar), avatar.keypoints)])
    assert np.asarray(made).shape == (64, 64, 3)
    with pytest.raises(ValueError, match=r"^the face was prepared at 128 pixels, but this generator makes 64$"):
        small.animate([FaceRequest(large.prepare(avatar), avatar.keypoints)])
    large.close()
    with pytest.raises(RuntimeError, match=r"^the generator is closed$"):
        large.prepare(avatar)
    small.prepare(avatar)


def test_at_rest_a_visible_source_comes_back(exported: Path) -> None:
    """With everything visible and the background's motion alone, the network's own loss is what is added (0010)."""
    read = ModelFiles.read(exported)
    arrays = {name: array.copy() for name, array in read.weights.arrays.items()}
    motion = "generator.dense_motion_network"
    arrays[f"{motion}.occlusion.weight"][:] = arrays[f"{motion}.mask.weight"][:] = 0
    arrays[f"{motion}.occlusion.bias"][:] = 20
    arrays[f"{motion}.mask.bias"][0] = 30
    weights = replace(read.weights, arrays=arrays)
    generator = OnnxGenerator(Network.open(replace(read, weights=weights), threads=1), size=SIZE)
    assert generator.precision == "int8", "what integers lose comes back with it"
    avatar = face(1)
    (made,) = generator.animate([FaceRequest(generator.prepare(avatar), avatar.keypoints)])
    np.testing.assert_array_equal(made, avatar.rgb)


def test_a_size_that_does_not_pass_through(exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"multiple of 32, not 100$"):
        OnnxGenerator.load(exported, size=100)


def test_another_number_of_keypoints_than_packets_carry(exported: Path) -> None:
    read = ModelFiles.read(exported)
    network = Network.open(read, threads=1)
    with pytest.raises(MismatchedWeights, match=r"^the weights have 5 keypoints, but a motion packet has 10$"):
        OnnxGenerator(replace(network, config=replace(network.config, num_keypoints=5)), size=SIZE)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("npu", "the onnx backend runs on cpu, cuda or tensorrt, not on 'npu'"),
        ("tensorrt", "this ONNX Runtime has no TensorrtExecutionProvider: pip install onnxruntime-gpu"),
        ("cuda:1", "this ONNX Runtime has no CUDAExecutionProvider: pip install onnxruntime-gpu"),
    ],
)
def test_devices_that_are_not_there(exported: Path, device: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderMissing) as error:
        OnnxGenerator.load(exported, size=SIZE, device=device)
    assert str(error.value) == text


def test_running_takes_neither_torch_nor_onnx(exported: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from mien_generator.face.contract import AvatarFace, FaceRequest\n"
        "from mien_generator.face.onnx.generator import OnnxGenerator\n"
        "from mien_shared.wire.motion import Keypoints\n"
        f"generator = OnnxGenerator.load(Path({str(exported)!r}), size={SIZE}, threads=1)\n"
        f"face = AvatarFace(np.zeros(({SIZE}, {SIZE}, 3), np.uint8), Keypoints.at_rest())\n"
        "made = generator.animate([FaceRequest(generator.prepare(face), Keypoints.at_rest())])\n"
        "print(made[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"({SIZE}, {SIZE}, 3)\n"
