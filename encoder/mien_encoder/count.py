"""What an encoder's file costs, counted on the graph that ONNX Runtime runs: no other package can read it here."""

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

#: A MatMul multiplies by heatmaps and by places, which no training made: no parameters.
_MULTIPLYING = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class EncoderCount:
    """macs: multiply-accumulates of one crop; parameters: of its layers; size_bytes: of the file."""

    macs: int
    parameters: int
    size_bytes: int
    sha256: str


def count(path: Path | None = None) -> EncoderCount:
    """Count an encoder, the bundled one unless a file is named. Raises EncoderFileError.

    ONNX Runtime's profile of one crop names each layer with the shapes of what went in and came out.
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
        came_in = [_shape(tensor) for tensor in layer["input_type_shape"]]
        made = _shape(layer["output_type_shape"][0])
        if layer["op_name"] == "Conv":
            weights = math.prod(came_in[1])
            macs += weights * math.prod(made[2:])
            parameters += weights + made[1]
        else:  # weights are packed by now and not named: a row of them for every value that is made
            macs += came_in[0][-1] * math.prod(made)
            parameters += (came_in[0][-1] + 1) * made[-1] if layer["op_name"] == "Gemm" else 0
    return EncoderCount(macs, parameters, len(model), manifest.sha256)


def _shape(tensor: dict[str, Any]) -> list[int]:
    """{"float": [1, 8, 128, 128]} as the profile has it."""
    (shape,) = tensor.values()
    return [int(side) for side in shape]
