"""The files that ONNX Runtime needs to run a network: weights, graphs without weights, and ranges for 8-bit integers.

Next to `NAME.safetensors` are `NAME.prepare.onnx` and `NAME.animate.onnx`, for a calibrated model also
`NAME.animate-int8.onnx` and `NAME.ranges.json`, and `NAME.sha256`, a list that `sha256sum -c` can check. A file that
differs from the list is rejected, because a graph of other weights would run but show noise.

To run the network on a different server, export_standalone writes `NAME-prepare.onnx` and `NAME-animate.onnx`, which
contain their weights and need no other file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mien_generator.face.fomm.weights import StoredWeights, TamperedWeights, WeightsError
from mien_generator.face.onnx.arithmetic import NotCalibrated, Range
from mien_generator.face.onnx.network import animate_graph, prepare_graph

FORMAT = "mien-graph"
FORMAT_VERSION = 1

Part = Literal["prepare", "animate", "animate-int8"]


class NotExported(WeightsError):
    """There are no graphs for the weights: `mien model export` was not run."""


class UnknownGraphVersion(WeightsError):
    """The graphs were written by an incompatible version of `mien model export`."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelFiles:
    """The contents of a model's files, checked against the list next to the weights.

    graphs: ONNX files. ranges: by quantisation point; None for a model that is not calibrated.
    """

    name: str
    weights: StoredWeights
    graphs: Mapping[Part, bytes]
    ranges: Mapping[str, Range] | None

    @classmethod
    def read(cls, path: Path) -> ModelFiles:
        """path: the safetensors file.

        Raises NotExported, UnknownGraphVersion, NotCalibrated, TamperedWeights, any error of StoredWeights.read, or
        OSError.
        """
        weights = StoredWeights.read(path)
        digests = _read_list(path)
        _check(path, digests)
        graphs = {part: _check(_graph(path, part), digests) for part in _parts(path, digests)}
        ranges = _ranges(path)
        calibrated = ranges.name in digests
        found = parse_ranges(_check(ranges, digests), ranges.name) if calibrated else None
        return cls(path.stem, weights, graphs, found)


def export(path: Path) -> list[Path]:
    """Write the graphs of a safetensors file next to it, an 8-bit graph if its ranges exist, and the list of all files.

    Needs the `onnx` package. Raises any error of StoredWeights.read, NotCalibrated, ConfigError, or OSError.
    """
    weights = StoredWeights.read(path)
    # A graph depends only on shapes. Its parameters are computed again from the weights when it is opened.
    metadata = _metadata(weights)
    graphs: dict[Part, bytes] = {
        "prepare": prepare_graph(weights.config, weights.arrays).serialised(metadata),
        "animate": animate_graph(weights.config, weights.arrays).graph.serialised(metadata),
    }
    files = [path]
    if _ranges(path).exists():
        ranges = parse_ranges(_ranges(path).read_bytes(), _ranges(path).name)
        graphs["animate-int8"] = animate_graph(weights.config, weights.arrays, ranges).graph.serialised(metadata)
        files.append(_ranges(path))
    for part, data in graphs.items():
        _write(_graph(path, part), data)
        files.append(_graph(path, part))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    _write(_list(path), f"# {FORMAT} {FORMAT_VERSION}\n{''.join(lines)}".encode())
    return [*files[1:], _list(path)]


def export_standalone(path: Path, folder: Path) -> list[Path]:
    """Write float32 graphs that contain the weights of a safetensors file, for a runtime without Mien.

    `NAME-prepare.onnx` and `NAME-animate.onnx` (network.py: inputs and outputs) use only standard ONNX operators.
    Their metadata have the configuration and the sha256 of the weights. folder: created if it does not exist.
    Needs the `onnx` package. Raises any error of StoredWeights.read, ConfigError, or OSError.
    """
    weights = StoredWeights.read(path)
    metadata = _metadata(weights) | {"weights_sha256": weights.sha256}
    graphs = (prepare_graph(weights.config, weights.arrays), animate_graph(weights.config, weights.arrays).graph)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for graph in graphs:
        # These names never collide with the graphs next to the weights, even if `folder` is the same folder.
        file = folder / f"{path.stem}-{graph.name}.onnx"
        _write(file, graph.serialised(metadata, with_parameters=True))
        written.append(file)
    return written


def write_ranges(path: Path, ranges: Mapping[str, Range]) -> Path:
    """Write the ranges of a safetensors file next to it; returns the path of the new file."""
    rounded = {point: [float(f"{bound:.6g}") for bound in both] for point, both in ranges.items()}
    rows = ",\n".join(f"  {json.dumps(point)}: {json.dumps(both)}" for point, both in rounded.items())
    _write(_ranges(path), f"{{\n{rows}\n}}\n".encode())
    return _ranges(path)


def parse_ranges(data: bytes, name: str) -> dict[str, Range]:
    """Ranges by point; raises NotCalibrated."""
    try:
        ranges = {str(point): (float(low), float(high)) for point, (low, high) in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise NotCalibrated(f"{name} does not contain ranges: run `mien model calibrate`") from error
    for point, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise NotCalibrated(f"{name}: the range of {point} is not valid: run `mien model calibrate`")
    return ranges


def _metadata(weights: StoredWeights) -> dict[str, str]:
    return {"format": FORMAT, "format_version": str(FORMAT_VERSION), "config": weights.config.to_json()}


def _read_list(path: Path) -> dict[str, str]:
    try:
        text = _list(path).read_text()
    except FileNotFoundError as error:
        raise NotExported(f"{path.name} has no graphs next to it: make them with `mien model export`") from error
    first, *lines = text.splitlines() or [""]
    if first != f"# {FORMAT} {FORMAT_VERSION}":
        raise UnknownGraphVersion(
            f"{_list(path).name} does not list graphs of version {FORMAT_VERSION}: make them with `mien model export`"
        )
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _parts(path: Path, digests: Mapping[str, str]) -> list[Part]:
    parts: list[Part] = ["prepare", "animate"]
    return [*parts, "animate-int8"] if _graph(path, "animate-int8").name in digests else parts


def _check(path: Path, digests: Mapping[str, str]) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digests.get(path.name):
        raise TamperedWeights(f"{path.name} differs from the file that `mien model export` listed")
    return data


def _graph(path: Path, part: Part) -> Path:
    return path.with_name(f"{path.stem}.{part}.onnx")


def _ranges(path: Path) -> Path:
    return path.with_name(f"{path.stem}.ranges.json")


def _list(path: Path) -> Path:
    return path.with_name(f"{path.stem}.sha256")


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
