"""The encoder K in ONNX Runtime: face crop in, ten keypoints with Jacobians and the probability of a face out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mien_encoder.crop import RgbArray
from mien_encoder.model_file import EncoderFileError, NotAnEncoder, bundled_path, read_encoder
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

#: Includes the file errors, because code that loads an encoder has to handle them.
__all__ = ["CROP_SIZE", "EncodedFace", "EncoderFileError", "KeypointEncoder", "bundled_path"]

#: Side of the encoder's input crop, in pixels.
CROP_SIZE = 256

_INPUT = "crops"
_OUTPUTS = ("points", "jacobians", "presence")


@dataclass(frozen=True, slots=True)
class EncodedFace:
    """The encoder's result for one crop. presence: 0 to 1, how likely the crop shows a correctly framed face."""

    keypoints: Keypoints
    presence: float


class KeypointEncoder:
    """The encoder, loaded once. Each call uses one CPU thread; several threads may call it at the same time.

    sha256: of the loaded file, for logs and model listings.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Load an encoder file, by default the bundled one. Raises a model_file.EncoderFileError."""
        path = bundled_path() if path is None else path
        model, manifest = read_encoder(path)
        self.sha256 = manifest.sha256
        options = ort.SessionOptions()
        # A frame takes less time than waking a second thread, and many encoders and services share a machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise NotAnEncoder(f"{path.name} is not a model that ONNX Runtime can run") from error
        inputs = [(one.name, one.type, one.shape[1:]) for one in self._session.get_inputs()]
        outputs = tuple(one.name for one in self._session.get_outputs())
        if inputs != [(_INPUT, "tensor(uint8)", [CROP_SIZE, CROP_SIZE, 3])] or outputs != _OUTPUTS:
            raise NotAnEncoder(f"{path.name} is a model, but not an encoder for {CROP_SIZE}x{CROP_SIZE} crops")

    def encode(self, crop: RgbArray) -> EncodedFace:
        """Encode one crop, (256, 256, 3) uint8 RGB, framed by the convention. Raises ValueError for another shape."""
        return self.encode_all([crop])[0]

    def encode_all(self, crops: Sequence[RgbArray]) -> list[EncodedFace]:
        """Encode several crops in one run; no crops give an empty list. Raises ValueError as encode does."""
        if not crops:
            return []
        for crop in crops:
            if crop.shape != (CROP_SIZE, CROP_SIZE, 3) or crop.dtype != np.uint8:
                raise ValueError(f"a crop must be ({CROP_SIZE}, {CROP_SIZE}, 3) uint8, not {crop.shape} {crop.dtype}")
        points, jacobians, presence = self._run(np.stack(crops))
        return [EncodedFace(Keypoints(points[i], jacobians[i]), float(presence[i])) for i in range(len(crops))]

    def _run(self, crops: RgbArray) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        points, jacobians, presence = self._session.run(_OUTPUTS, {_INPUT: crops})
        count = len(crops)
        assert points.shape == (count, NUM_KEYPOINTS, 2)
        return points, jacobians, presence
