from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.checkpoint import (
    FommWeights,
    NotACheckpoint,
    infer_config,
    random_weights,
    read_checkpoint,
    read_weights,
    write_weights,
)
from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, FommConfig
from mien_generator.face.fomm.shapes import tensor_shapes
from mien_generator.face.fomm.weights import MismatchedWeights


@pytest.fixture(scope="module")
def weights(small_config: FommConfig) -> FommWeights:
    return random_weights(small_config)


@pytest.fixture
def file(weights: FommWeights, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write_weights(weights, path)
    return path


def _save_published(path: Path, weights: FommWeights, prefix: str = "") -> None:
    """As the published training code saves: state dicts beside optimizer states, with training counters."""
    generator, detector = weights.generator(), weights.keypoint_detector()
    networks: dict[str, torch.nn.Module] = {"generator": generator, "kp_detector": detector}
    states = {name: {prefix + key: value for key, value in net.state_dict().items()} for name, net in networks.items()}
    torch.save({**states, "optimizer_generator": {"state": {}, "param_groups": [{"lr": 2e-4}]}, "epoch": 3}, path)


def test_written_weights_read_back_the_same(weights: FommWeights, file: Path) -> None:
    loaded = read_weights(file)
    assert loaded.config == weights.config
    assert loaded.sha256 == weights.sha256
    assert loaded.tensors.keys() == weights.tensors.keys()
    for name, tensor in weights.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)


def test_networks_carry_the_weights_and_run_in_eval_mode(weights: FommWeights) -> None:
    for prefix, network in (("generator", weights.generator()), ("kp_detector", weights.keypoint_detector())):
        assert not any(module.training for module in network.modules())
        assert not any(tensor.requires_grad for tensor in network.parameters())
        for name, tensor in network.named_parameters():
            assert torch.equal(tensor, weights.tensors[f"{prefix}.{name}"])


def test_random_weights_are_the_same_for_the_same_seed(small_config: FommConfig) -> None:
    assert random_weights(small_config, 1).sha256 == random_weights(small_config, 1).sha256
    assert random_weights(small_config, 1).sha256 != random_weights(small_config, 2).sha256


def test_half_precision_tensors_are_served_as_float32(weights: FommWeights) -> None:
    halved = FommWeights(weights.config, {name: tensor.half() for name, tensor in weights.tensors.items()})
    assert all(tensor.dtype == torch.float32 for tensor in halved.generator().parameters())


# --- the published checkpoint -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoint_loads_by_name(weights: FommWeights, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "published.pth.tar"
    _save_published(path, weights, prefix)
    assert read_checkpoint(path, weights.config).sha256 == weights.sha256


def test_the_given_published_checkpoint(published: Path, tmp_path: Path) -> None:
    config = FommConfig.from_json((published / "tiny_config.json").read_bytes())
    imported = read_checkpoint(published / "tiny.pth.tar", config)
    assert infer_config(imported.tensors) == config
    write_weights(imported, tmp_path / "tiny.safetensors")
    assert read_weights(tmp_path / "tiny.safetensors").sha256 == imported.sha256


@pytest.mark.parametrize("config", [HALF_WIDTH, FULL_WIDTH], ids=["half", "full"])
def test_widths_are_inferred_from_the_tensors(config: FommConfig) -> None:
    with torch.device("meta"):
        # Shapes are enough to infer from: no need to hold 45 million values here.
        from mien_generator.face.fomm.keypoint_detector import KeypointDetector
        from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator

        tensors = {f"generator.{name}": value for name, value in OcclusionAwareGenerator(config).state_dict().items()}
        tensors |= {f"kp_detector.{name}": value for name, value in KeypointDetector(config).state_dict().items()}
    # A cap that no level reaches leaves no trace: 32 x 2^2 channels, whether capped at 256 or not.
    widest = min(config.generator.max_features, config.generator.block_expansion * 4)
    assert infer_config(tensors) == replace(config, generator=replace(config.generator, max_features=widest))


def test_scale_one_is_inferred_from_a_blur_that_is_not_there(small_config: FommConfig) -> None:
    generator = small_config.generator
    unscaled = replace(
        small_config, generator=replace(generator, dense_motion=replace(generator.dense_motion, scale_factor=1.0))
    )
    assert infer_config(random_weights(unscaled).tensors) == unscaled


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "x.pth.tar is not a checkpoint that can be read without running code"),
        (b"not a checkpoint at all", "x.pth.tar is not a checkpoint that can be read without running code"),
        (pickle.dumps(print, protocol=2), "x.pth.tar is not a checkpoint that can be read without running code"),
    ],
    ids=["empty", "text", "pickled function"],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "x.pth.tar"
    path.write_bytes(content)
    with pytest.raises(NotACheckpoint) as error:
        read_checkpoint(path)
    assert str(error.value) == text


def test_a_truncated_checkpoint(weights: FommWeights, tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    _save_published(path, weights)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(NotACheckpoint):
        read_checkpoint(path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"generator": Trap(), "kp_detector": {}}, tmp_path / "x.pth.tar")
    with pytest.raises(NotACheckpoint):
        read_checkpoint(tmp_path / "x.pth.tar")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        ({"epoch": 3}, "x.pth.tar has no 'generator' network"),
        ({"generator": {}}, "x.pth.tar has no 'kp_detector' network"),
        ({"generator": {"first.conv.weight": 3}, "kp_detector": {}}, "x.pth.tar has no 'generator' network"),
        ([1, 2], "x.pth.tar has no 'generator' network"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path: Path, checkpoint: object, text: str) -> None:
    torch.save(checkpoint, tmp_path / "x.pth.tar")
    with pytest.raises(NotACheckpoint) as error:
        read_checkpoint(tmp_path / "x.pth.tar")
    assert str(error.value) == text


def test_empty_networks_name_the_first_tensor_missed(tmp_path: Path) -> None:
    torch.save({"generator": {}, "kp_detector": {}}, tmp_path / "x.pth.tar")
    with pytest.raises(MismatchedWeights, match=r"^tensor kp_detector.kp.weight is missing$"):
        read_checkpoint(tmp_path / "x.pth.tar")


def test_a_configuration_of_another_width(weights: FommWeights, tmp_path: Path) -> None:
    _save_published(tmp_path / "x.pth.tar", weights)
    wider = replace(weights.config, generator=replace(weights.config.generator, block_expansion=12))
    with pytest.raises(MismatchedWeights) as error:
        read_checkpoint(tmp_path / "x.pth.tar", wider)
    text = "tensor generator.first.conv.weight has shape (8, 3, 7, 7), the configuration needs (12, 3, 7, 7)"
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda tensors: tensors.pop("generator.final.bias"), "tensor generator.final.bias is missing"),
        (
            lambda tensors: tensors.update({"generator.bottleneck.r2.conv1.bias": torch.zeros(16)}),
            "tensor generator.bottleneck.r2.conv1.bias does not belong to the configured network",
        ),
        (
            lambda tensors: tensors.update({"generator.final.bias": torch.tensor([0.0, float("nan"), 0.0])}),
            "tensor generator.final.bias has a value that is not finite",
        ),
        (
            lambda tensors: tensors.update({"generator.final.bias": torch.zeros(3, dtype=torch.int64)}),
            "tensor generator.final.bias has type int64, not float16 or float32",
        ),
        (
            lambda tensors: tensors.update({"generator.final.bias": torch.zeros(3, dtype=torch.bfloat16)}),
            "tensor generator.final.bias has type torch.bfloat16, not float16 or float32",
        ),
    ],
    ids=["missing", "extra", "not finite", "integers", "bfloat16"],
)
def test_tensors_that_are_not_the_networks(
    weights: FommWeights, edit: Callable[[dict[str, torch.Tensor]], object], text: str
) -> None:
    tensors = dict(weights.tensors)
    edit(tensors)
    with pytest.raises(MismatchedWeights) as error:
        FommWeights(weights.config, tensors)
    assert str(error.value) == text


# --- without a keypoint detector --------------------------------------------------------------------------------------


def test_a_trained_generator_alone(weights: FommWeights, tmp_path: Path) -> None:
    network = weights.generator()
    alone = FommWeights.of_generator(weights.config, network.state_dict())
    assert alone.config == replace(weights.config, keypoint_detector=None)
    write_weights(alone.half(), tmp_path / "alone.safetensors")
    loaded = read_weights(tmp_path / "alone.safetensors")
    assert loaded.config == alone.config
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {torch.float16}
    for name, tensor in loaded.generator().named_parameters():
        torch.testing.assert_close(tensor, network.get_parameter(name), rtol=1e-3, atol=1e-6)
    with pytest.raises(MismatchedWeights, match=r"^the weights have no keypoint detector$"):
        loaded.keypoint_detector()


def test_random_weights_of_a_generator_alone(small_config: FommConfig) -> None:
    alone = random_weights(replace(small_config, keypoint_detector=None))
    assert not any(name.startswith("kp_detector.") for name in alone.tensors)


@pytest.mark.parametrize("config", [HALF_WIDTH, FULL_WIDTH, replace(HALF_WIDTH, keypoint_detector=None)])
def test_shapes_without_torch_are_those_of_the_modules(config: FommConfig) -> None:
    from mien_generator.face.fomm.keypoint_detector import KeypointDetector
    from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator

    with torch.device("meta"):
        networks: dict[str, torch.nn.Module] = {"generator": OcclusionAwareGenerator(config)}
        if config.keypoint_detector is not None:
            networks["kp_detector"] = KeypointDetector(config)
    assert tensor_shapes(config) == {
        f"{prefix}.{name}": tuple(tensor.shape)
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
