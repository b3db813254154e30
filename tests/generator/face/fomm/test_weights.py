from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.shapes import tensor_shapes
from mien_generator.face.fomm.weights import (
    MismatchedWeights,
    NotAWeightsFile,
    StoredWeights,
    TamperedWeights,
    TruncatedWeights,
    UnknownWeightsVersion,
    WeightsError,
)


@pytest.fixture(scope="module")
def weights(small_config: FommConfig) -> StoredWeights:
    values = np.random.default_rng(0)
    shapes = tensor_shapes(small_config)
    return StoredWeights(
        small_config, {name: values.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    )


@pytest.fixture
def file(weights: StoredWeights, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    weights.write(path)
    return path


def _edit_header(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_written_weights_read_back_the_same(weights: StoredWeights, file: Path) -> None:
    loaded = StoredWeights.read(file, weights.sha256)
    assert loaded.config == weights.config
    assert loaded.sha256 == weights.sha256
    assert loaded.arrays.keys() == weights.arrays.keys()
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_half_precision_is_half_the_file(weights: StoredWeights, file: Path) -> None:
    half = file.with_name("half.safetensors")
    weights.half().write(half)
    assert half.stat().st_size < 0.6 * file.stat().st_size  # the header is as long
    loaded = StoredWeights.read(half)
    assert {array.dtype for array in loaded.arrays.values()} == {np.dtype(np.float16)}
    name = "generator.first.conv.weight"
    np.testing.assert_allclose(loaded.arrays[name], weights.arrays[name], rtol=1e-3, atol=1e-6)


def test_a_value_too_large_for_half_precision(weights: StoredWeights) -> None:
    arrays = dict(weights.arrays) | {"generator.final.bias": np.array([0, 1e5, 0], np.float32)}
    with pytest.raises(MismatchedWeights, match=r"^tensor generator.final.bias has a value that is not finite$"):
        StoredWeights(weights.config, arrays).half()


def test_a_generator_alone(weights: StoredWeights, tmp_path: Path) -> None:
    config = replace(weights.config, keypoint_detector=None)
    arrays = {name: array for name, array in weights.arrays.items() if name.startswith("generator.")}
    StoredWeights(config, arrays).write(tmp_path / "alone.safetensors")
    assert StoredWeights.read(tmp_path / "alone.safetensors").config == config


def test_another_file_than_the_one_expected(weights: StoredWeights, file: Path) -> None:
    with pytest.raises(TamperedWeights) as error:
        StoredWeights.read(file, "0" * 64)
    assert str(error.value) == f"small.safetensors has sha256 {weights.sha256}, expected {'0' * 64}"


def test_file_says_what_it_is(weights: StoredWeights, file: Path) -> None:
    with safetensors.safe_open(file, "np") as opened:
        metadata = opened.metadata()
    assert metadata == {
        "format": "mien-fomm",
        "format_version": "2",
        "config": weights.config.to_json(),
        "sha256": weights.sha256,
    }


def test_writing_leaves_no_partial_file(file: Path) -> None:
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n and more", struct.pack("<Q", 4) + b"nope" + b"tensors"])
def test_what_is_no_weights_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(NotAWeightsFile, match=r"^x.safetensors is not a safetensors file$"):
        StoredWeights.read(path)


def test_somebody_elses_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(NotAWeightsFile, match=r"^x.safetensors was not written by 'mien model import'$"):
        StoredWeights.read(path)


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
        StoredWeights.read(file)
    assert str(error.value) == text


def test_a_file_cut_in_its_tensors(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(TruncatedWeights) as error:
        StoredWeights.read(file)
    assert str(error.value) == f"small.safetensors ends after {len(data) - 1} of {len(data)} bytes"


def test_one_flipped_bit_in_a_tensor(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the lowest mantissa bit of the last value
    file.write_bytes(data)
    with pytest.raises(TamperedWeights) as error:
        StoredWeights.read(file)
    assert str(error.value) == "small.safetensors: the contents do not match the sha256 in its metadata"


def test_a_changed_configuration_that_still_fits(file: Path) -> None:
    _edit_header(
        file,
        lambda header: header["__metadata__"].update(
            config=header["__metadata__"]["config"].replace('"temperature":0.1', '"temperature":0.2')
        ),
    )
    with pytest.raises(TamperedWeights):
        StoredWeights.read(file)


def test_a_file_without_its_digest(file: Path) -> None:
    _edit_header(file, lambda header: header["__metadata__"].pop("sha256"))
    with pytest.raises(TamperedWeights) as error:
        StoredWeights.read(file)
    assert str(error.value) == "small.safetensors: the configuration or the sha256 is missing in its metadata"


def test_bytes_after_the_last_tensor(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(NotAWeightsFile, match=r"^small.safetensors is not a safetensors file: "):
        StoredWeights.read(file)


def test_a_later_format_version(file: Path) -> None:
    _edit_header(file, lambda header: header["__metadata__"].update(format_version="3"))
    with pytest.raises(UnknownWeightsVersion) as error:
        StoredWeights.read(file)
    assert str(error.value) == (
        "small.safetensors has weights format version 3, but only version 2 can be read: "
        "run this version's `mien model import`"
    )


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            '"block_expansion":8,"dense',
            '"block_expansion":12,"dense',
            "small.safetensors: tensor generator.first.conv.weight has shape (8, 3, 7, 7),"
            " the configuration needs (12, 3, 7, 7)",
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
        StoredWeights.read(file)
    assert str(error.value) == text


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StoredWeights.read(tmp_path / "nowhere.safetensors")


def test_every_named_error_is_a_weights_error() -> None:
    for error in (MismatchedWeights, NotAWeightsFile, UnknownWeightsVersion, TruncatedWeights, TamperedWeights):
        assert issubclass(error, WeightsError)
