from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import safetensors.torch
import torch

from mien_generator.face.fomm.checkpoint import (
    FommWeights,
    MismatchedWeights,
    NotACheckpoint,
    NotAWeightsFile,
    TamperedWeights,
    TruncatedWeights,
    UnknownWeightsVersion,
    WeightsError,
    infer_config,
    random_weights,
    read_checkpoint,
    read_weights,
    write_weights,
)
from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, FommConfig


@pytest.fixture(scope="module")
def weights(small_config: FommConfig) -> FommWeights:
    return random_weights(small_config)


@pytest.fixture
def file(weights: FommWeights, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write_weights(weights, path)
    return path


def _edit_header(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


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


def test_file_says_what_it_is(weights: FommWeights, file: Path) -> None:
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata == {
        "format": "mien-fomm",
        "format_version": "1",
        "config": weights.config.to_json(),
        "sha256": weights.sha256,
    }


def test_writing_leaves_no_partial_file(file: Path) -> None:
    assert list(file.parent.iterdir()) == [file]


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
        ({"epoch": 3}, "x.pth.tar holds no 'generator' network"),
        ({"generator": {}}, "x.pth.tar holds no 'kp_detector' network"),
        ({"generator": {"first.conv.weight": 3}, "kp_detector": {}}, "x.pth.tar holds no 'generator' network"),
        ([1, 2], "x.pth.tar holds no 'generator' network"),
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
    text = "tensor generator.first.conv.weight has shape (8, 3, 7, 7), the configuration wants (12, 3, 7, 7)"
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda tensors: tensors.pop("generator.final.bias"), "tensor generator.final.bias is missing"),
        (
            lambda tensors: tensors.update({"generator.bottleneck.r2.conv1.bias": torch.zeros(16)}),
            "tensor generator.bottleneck.r2.conv1.bias has no place in the configured network",
        ),
        (
            lambda tensors: tensors.update({"generator.final.bias": torch.tensor([0.0, float("nan"), 0.0])}),
            "tensor generator.final.bias holds a value that is not finite",
        ),
        (
            lambda tensors: tensors.update({"generator.final.bias": torch.zeros(3, dtype=torch.int64)}),
            "tensor generator.final.bias holds torch.int64, not floating-point numbers",
        ),
    ],
    ids=["missing", "extra", "not finite", "integers"],
)
def test_tensors_that_are_not_the_networks(
    weights: FommWeights, edit: Callable[[dict[str, torch.Tensor]], object], text: str
) -> None:
    tensors = dict(weights.tensors)
    edit(tensors)
    with pytest.raises(MismatchedWeights) as error:
        FommWeights(weights.config, tensors)
    assert str(error.value) == text


# --- the weights file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n and more", struct.pack("<Q", 4) + b"nope" + b"tensors"])
def test_what_is_no_weights_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(NotAWeightsFile, match=r"^x.safetensors is not a safetensors file$"):
        read_weights(path)


def test_somebody_elses_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(NotAWeightsFile, match=r"^x.safetensors was not written by 'mien model import'$"):
        read_weights(path)


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (0, "small.safetensors ends after 0 bytes, inside its header"),
        (5, "small.safetensors ends after 5 bytes, inside its header"),
        (500, "small.safetensors ends after 500 bytes, inside its header"),
    ],
)
def test_a_file_cut_in_its_header(file: Path, keep: int, text: str) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(TruncatedWeights) as error:
        read_weights(file)
    assert str(error.value) == text


def test_a_file_cut_in_its_tensors(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(TruncatedWeights) as error:
        read_weights(file)
    assert str(error.value) == f"small.safetensors ends after {len(data) - 1} of {len(data)} bytes"


def test_one_flipped_bit_in_a_tensor(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the lowest mantissa bit of the last value
    file.write_bytes(data)
    with pytest.raises(TamperedWeights) as error:
        read_weights(file)
    assert str(error.value) == "small.safetensors: its contents do not match the sha256 that was written with them"


def test_a_changed_configuration_that_still_fits(file: Path) -> None:
    _edit_header(
        file,
        lambda header: header["__metadata__"].update(
            config=header["__metadata__"]["config"].replace('"temperature":0.1', '"temperature":0.2')
        ),
    )
    with pytest.raises(TamperedWeights):
        read_weights(file)


def test_a_file_without_its_digest(file: Path) -> None:
    _edit_header(file, lambda header: header["__metadata__"].pop("sha256"))
    with pytest.raises(TamperedWeights) as error:
        read_weights(file)
    assert str(error.value) == "small.safetensors: its metadata lacks the configuration or the sha256"


def test_bytes_after_the_last_tensor(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(NotAWeightsFile, match=r"^small.safetensors is not a safetensors file: "):
        read_weights(file)


def test_a_later_format_version(file: Path) -> None:
    _edit_header(file, lambda header: header["__metadata__"].update(format_version="2"))
    with pytest.raises(UnknownWeightsVersion) as error:
        read_weights(file)
    assert str(error.value) == "small.safetensors has weights format version 2, only 1 is known"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            '"block_expansion":8,"dense',
            '"block_expansion":12,"dense',
            "small.safetensors: tensor generator.first.conv.weight has shape (8, 3, 7, 7),"
            " the configuration wants (12, 3, 7, 7)",
        ),
        (
            '"num_kp":10',
            '"num_kp":0',
            "small.safetensors: model configuration: common_params.num_kp must be a whole number above 0, not 0",
        ),
    ],
)
def test_a_configuration_that_is_not_the_tensors(file: Path, old: str, new: str, text: str) -> None:
    def edit(header: dict[str, Any]) -> None:
        assert old in header["__metadata__"]["config"]
        header["__metadata__"]["config"] = header["__metadata__"]["config"].replace(old, new)

    _edit_header(file, edit)
    with pytest.raises(MismatchedWeights) as error:
        read_weights(file)
    assert str(error.value) == text


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "nowhere.safetensors")


def test_every_named_error_is_a_weights_error() -> None:
    for error in (NotACheckpoint, NotAWeightsFile, UnknownWeightsVersion, TruncatedWeights, TamperedWeights):
        assert issubclass(error, WeightsError)
