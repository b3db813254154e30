"""Counts the cost of an encoder file on the graph that ONNX Runtime runs, so that no other package is needed."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from mien_encoder.keypoints import CROP_SIZE
from mien_encoder.model_file import bundled_path, read_encoder

#: The MatMul operators multiply heatmaps with positions, which are not trained: they count as work, not as parameters.
_MULTIPLYING = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class EncoderCount:
    """macs: multiply-accumulates for one crop. parameters: of all layers. size_bytes: of the file."""

    macs: int
    parameters: int
    size_bytes: int
    sha256: str


def count(path: Path | None = None) -> EncoderCount:
    """Count an encoder file, by default the bundled one. Raises EncoderFileError.

    The counts come from ONNX Runtime's profile of one crop, which lists each layer with its input and output shapes.
    """
    path = bundled_path() if path is None else path
    model, manifest = read_encoder(path)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {"crops": np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text())
    layers = [
        event["args"]
        for event in events
        if event.get("name", "").endswith("_kernel_time") and event["args"].get("op_name") in _MULTIPLYING
    ]
    macs, parameters = 0, 0
    for layer in layers:
        inputs = [_shape(tensor) for tensor in layer["input_type_shape"]]
        output = _shape(layer["output_type_shape"][0])
        if layer["op_name"] == "Conv":
            weights = math.prod(inputs[1])
            macs += weights * math.prod(output[2:])
            parameters += weights + output[1]
        else:  # the profile does not list the packed weights: one row of them for each output value
            macs += inputs[0][-1] * math.prod(output)
            parameters += (inputs[0][-1] + 1) * output[-1] if layer["op_name"] == "Gemm" else 0
    return EncoderCount(macs, parameters, len(model), manifest.sha256)


def _shape(tensor: dict[str, Any]) -> list[int]:
    """The shape of a tensor in the profile, such as {"float": [1, 8, 128, 128]}."""
    (shape,) = tensor.values()
    return [int(side) for side in shape]
