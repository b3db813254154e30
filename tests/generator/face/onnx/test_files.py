from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import SIZE, random_arrays

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.weights import (
    MismatchedWeights,
    StoredWeights,
    TamperedWeights,
    TruncatedWeights,
    WeightsError,
)
from mien_generator.face.onnx import files
from mien_generator.face.onnx.arithmetic import NotCalibrated
from mien_generator.face.onnx.files import ModelFiles, NotExported, UnknownGraphVersion
from mien_generator.face.onnx.generator import OnnxGenerator
from mien_generator.face.onnx.sessions import Network

_PARTS = ("prepare.onnx", "animate.onnx", "animate-int8.onnx", "ranges.json")


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    for file in exported.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / exported.name


def test_files_are_listed_as_sha256sum_does(model: Path) -> None:
    comment, *lines = model.with_suffix(".sha256").read_text().splitlines()
    assert comment.startswith("#")
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert listed.keys() == {model.name, *(f"small.{part}" for part in _PARTS)}
    for name, digest in listed.items():
        assert hashlib.sha256(model.with_name(name).read_bytes()).hexdigest() == digest


def test_graphs_hold_no_weights(model: Path) -> None:
    graphs = [model.with_name(f"small.{part}").stat().st_size for part in _PARTS[:3]]
    assert max(graphs) < 60_000
    assert model.stat().st_size > max(graphs)


def test_exporting_again_changes_nothing(model: Path) -> None:
    before = {file.name: file.read_bytes() for file in model.parent.iterdir()}
    files.export(model)
    assert {file.name: file.read_bytes() for file in model.parent.iterdir()} == before


def test_graphs_depend_on_the_configuration_alone(model: Path, own_config: FommConfig) -> None:
    animate = model.with_name("small.animate-int8.onnx").read_bytes()
    random_arrays(own_config, 7).half().write(model)
    files.export(model)
    assert model.with_name("small.animate-int8.onnx").read_bytes() == animate


def test_ranges_read_back_as_written(model: Path) -> None:
    ranges = ModelFiles.read(model).ranges
    assert ranges is not None
    before = model.with_name("small.ranges.json").read_bytes()
    files.write_ranges(model, ranges)
    assert model.with_name("small.ranges.json").read_bytes() == before


def test_a_model_without_ranges_runs_in_float32(model: Path) -> None:
    model.with_name("small.ranges.json").unlink()
    files.export(model)
    assert OnnxGenerator.load(model, size=SIZE, threads=1).precision == "float32"
    with pytest.raises(NotCalibrated, match=r"^small is not calibrated for int8: run `mien model calibrate`$"):
        OnnxGenerator.load(model, size=SIZE, precision="int8")


# --- wrong files ------------------------------------------------------------------------------------------------------


def test_weights_without_graphs(model: Path) -> None:
    model.with_suffix(".sha256").unlink()
    with pytest.raises(NotExported) as error:
        ModelFiles.read(model)
    assert str(error.value) == "small.safetensors has no graphs next to it: make them with `mien model export`"


def test_a_list_of_another_version(model: Path) -> None:
    listed = model.with_suffix(".sha256")
    listed.write_text(listed.read_text().replace("# mien-graph 1", "# mien-graph 2"))
    with pytest.raises(UnknownGraphVersion) as error:
        ModelFiles.read(model)
    assert str(error.value) == "small.sha256 does not list graphs of version 1: make them with `mien model export`"
    listed.write_text("")
    with pytest.raises(UnknownGraphVersion):
        ModelFiles.read(model)


@pytest.mark.parametrize("part", _PARTS)
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:20] + b"!" + data[21:], lambda data: b""]
)
def test_a_file_that_is_not_the_listed_one(model: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    path = model.with_name(f"small.{part}")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TamperedWeights) as error:
        ModelFiles.read(model)
    assert str(error.value) == f"small.{part} differs from the file that `mien model export` listed"


@pytest.mark.parametrize("part", _PARTS[:2])
def test_a_listed_file_that_is_missing(model: Path, part: str) -> None:
    model.with_name(f"small.{part}").unlink()
    with pytest.raises(FileNotFoundError):
        ModelFiles.read(model)


def test_weights_that_were_trained_further_want_another_export(model: Path, own_config: FommConfig) -> None:
    random_arrays(own_config, 8).half().write(model)
    with pytest.raises(
        TamperedWeights, match=r"^small.safetensors differs from the file that `mien model export` listed$"
    ):
        ModelFiles.read(model)


def test_truncated_weights_say_so_first(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(TruncatedWeights):
        ModelFiles.read(model)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ModelFiles.read(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not json", "x does not contain ranges: run `mien model calibrate`"),
        (b"[1, 2]", "x does not contain ranges: run `mien model calibrate`"),
        (b'{"up.0": 3}', "x does not contain ranges: run `mien model calibrate`"),
        (b'{"up.0": [0, 1, 2]}', "x does not contain ranges: run `mien model calibrate`"),
        (b'{"up.0": [2, 1]}', "x: the range of up.0 is not valid: run `mien model calibrate`"),
        (b'{"up.0": [0, Infinity]}', "x: the range of up.0 is not valid: run `mien model calibrate`"),
    ],
)
def test_ranges_that_are_none(content: bytes, text: str) -> None:
    with pytest.raises(NotCalibrated) as error:
        files.parse_ranges(content, "x")
    assert str(error.value) == text


def test_ranges_of_another_network(model: Path) -> None:
    path = model.with_name("small.ranges.json")
    ranges = json.loads(path.read_text())
    del ranges["up.0"]
    path.write_text(json.dumps(ranges))
    with pytest.raises(NotCalibrated, match=r"^there is no range for up.0: run `mien model calibrate`$"):
        files.export(model)


def test_graphs_of_another_width(exported: Path, model: Path, own_config: FommConfig) -> None:
    """As if the list had been made by hand: what the session is given does not fit what the file declares."""
    wider = replace(own_config, generator=replace(own_config.generator, block_expansion=12, max_features=24))
    random_arrays(wider, 0).write(model)
    model.with_name("small.ranges.json").unlink()
    files.export(model)
    swapped = replace(ModelFiles.read(model), graphs=ModelFiles.read(exported).graphs)
    with pytest.raises(MismatchedWeights, match=r"^small.prepare.onnx is not a graph for these weights: "):
        Network.open(swapped, precision="float32", threads=1)


def test_graphs_of_another_grid(model: Path, own_config: FommConfig) -> None:
    """The same shapes, another function: only the configuration in the graph tells them apart."""
    read = ModelFiles.read(model)
    other = replace(own_config, pixel_centres=False, source_residual=False)
    with pytest.raises(MismatchedWeights) as error:
        Network.open(replace(read, weights=StoredWeights(other, read.weights.arrays)), precision="float32", threads=1)
    assert (
        str(error.value)
        == "small.prepare.onnx was made for a different configuration than the weights: run `mien model export`"
    )


def test_what_is_no_graph(model: Path) -> None:
    read = ModelFiles.read(model)
    broken = replace(read, graphs={**read.graphs, "animate": b"no graph"})
    with pytest.raises(MismatchedWeights, match=r"^small.animate.onnx is not a graph for these weights: "):
        Network.open(broken, precision="float32", threads=1)


def test_every_named_error_is_a_weights_error() -> None:
    for error in (NotExported, UnknownGraphVersion, NotCalibrated):
        assert issubclass(error, WeightsError)
