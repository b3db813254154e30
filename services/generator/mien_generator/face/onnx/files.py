"""The files that a network is run from with ONNX Runtime: weights, graphs without them, and ranges for 8-bit integers.

Beside `NAME.safetensors` lie `NAME.prepare.onnx`, `NAME.animate.onnx`, `NAME.animate-int8.onnx` and `NAME.ranges.json`
(the last two where a model was calibrated), and `NAME.sha256`, a list as `sha256sum` writes and checks it. Files that
are not those of the list are refused: a graph of other weights would run, and show noise.

Whoever serves the network from elsewhere gets it without any of this: `NAME-prepare.onnx` and `NAME-animate.onnx`, each
with its weights inside.
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
    """Weights that `mien model export` has made no graphs for."""


class UnknownGraphVersion(WeightsError):
    """Graphs that another version of `mien model export` wrote."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelFiles:
    """What a session is opened with; every byte is what the list beside the weights says.

    graphs: ONNX files. ranges: by quantisation point; None for a model that was never calibrated.
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
    """Write the graphs of a safetensors file beside it, 8-bit ones where its ranges lie there, and the list of all.

    Needs the `onnx` package. Raises any error of StoredWeights.read, NotCalibrated, ConfigError, or OSError.
    """
    weights = StoredWeights.read(path)
    # What a graph looks like depends on shapes alone; its parameters are made again from the weights when it is opened.
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
    """Write a safetensors file as float32 graphs that hold their weights, for a runtime that knows nothing of Mien.

    `NAME-prepare.onnx` and `NAME-animate.onnx` (network.py: inputs and outputs), made of ONNX's own operators alone.
    Their metadata name the configuration, and the weights by their sha256. folder: made where it is missing.
    Needs the `onnx` package. Raises any error of StoredWeights.read, ConfigError, or OSError.
    """
    weights = StoredWeights.read(path)
    metadata = _metadata(weights) | {"weights_sha256": weights.sha256}
    graphs = (prepare_graph(weights.config, weights.arrays), animate_graph(weights.config, weights.arrays).graph)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for graph in graphs:
        # Never the name of a graph beside the weights, which the folder may be.
        file = folder / f"{path.stem}-{graph.name}.onnx"
        _write(file, graph.serialised(metadata, with_parameters=True))
        written.append(file)
    return written


def write_ranges(path: Path, ranges: Mapping[str, Range]) -> Path:
    """Keep what calibration found for a safetensors file beside it."""
    rounded = {point: [float(f"{bound:.6g}") for bound in both] for point, both in ranges.items()}
    rows = ",\n".join(f"  {json.dumps(point)}: {json.dumps(both)}" for point, both in rounded.items())
    _write(_ranges(path), f"{{\n{rows}\n}}\n".encode())
    return _ranges(path)


def parse_ranges(data: bytes, name: str) -> dict[str, Range]:
    """Ranges by point; raises NotCalibrated."""
    try:
        ranges = {str(point): (float(low), float(high)) for point, (low, high) in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise NotCalibrated(f"{name} holds no ranges") from error
    for point, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise NotCalibrated(f"{name}: the range of {point} is none")
    return ranges


def _metadata(weights: StoredWeights) -> dict[str, str]:
    return {"format": FORMAT, "format_version": str(FORMAT_VERSION), "config": weights.config.to_json()}


def _read_list(path: Path) -> dict[str, str]:
    try:
        text = _list(path).read_text()
    except FileNotFoundError as error:
        raise NotExported(f"{path.name} has no graphs beside it: make them with `mien model export`") from error
    first, *lines = text.splitlines() or [""]
    if first != f"# {FORMAT} {FORMAT_VERSION}":
        raise UnknownGraphVersion(
            f"{_list(path).name} lists no graphs of version {FORMAT_VERSION}: make them with `mien model export`"
        )
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _parts(path: Path, digests: Mapping[str, str]) -> list[Part]:
    parts: list[Part] = ["prepare", "animate"]
    return [*parts, "animate-int8"] if _graph(path, "animate-int8").name in digests else parts


def _check(path: Path, digests: Mapping[str, str]) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digests.get(path.name):
        raise TamperedWeights(f"{path.name} is not the file that `mien model export` listed")
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
