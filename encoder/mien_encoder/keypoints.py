"""The encoder K in ONNX Runtime: a face crop in, ten keypoints with Jacobians out, and how likely it is a face."""

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

#: Whoever loads an encoder meets its file's errors too.
__all__ = ["CROP_SIZE", "EncodedFace", "EncoderFileError", "KeypointEncoder", "bundled_path"]

#: Side of the crop that the encoder looks at, pixels.
CROP_SIZE = 256

_INPUT = "crops"
_OUTPUTS = ("points", "jacobians", "presence")


@dataclass(frozen=True, slots=True)
class EncodedFace:
    """What the encoder says of one crop. presence: 0 to 1, how likely the crop shows a face framed as faces are."""

    keypoints: Keypoints
    presence: float


class KeypointEncoder:
    """The encoder, loaded once; one thread of the processor a call. May be used by several threads at a time.

    sha256: of the file it was loaded from, for logs and model listings.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Load an encoder, the bundled one unless a file is named. Raises a model_file.EncoderFileError."""
        path = bundled_path() if path is None else path
        model, manifest = read_encoder(path)
        self.sha256 = manifest.sha256
        options = ort.SessionOptions()
        # A frame costs less than waking a second thread; many encoders and services share a machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exceptions share no other base
            raise NotAnEncoder(f"{path.name} is no model that ONNX Runtime can run") from error
        inputs = [(one.name, one.type, one.shape[1:]) for one in self._session.get_inputs()]
        outputs = tuple(one.name for one in self._session.get_outputs())
        if inputs != [(_INPUT, "tensor(uint8)", [CROP_SIZE, CROP_SIZE, 3])] or outputs != _OUTPUTS:
            raise NotAnEncoder(f"{path.name} is a model, but no encoder of {CROP_SIZE}x{CROP_SIZE} crops")

    def encode(self, crop: RgbArray) -> EncodedFace:
        """One crop, (256, 256, 3) RGB, framed as every crop is. ValueError if it has another shape."""
        return self.encode_all([crop])[0]

    def encode_all(self, crops: Sequence[RgbArray]) -> list[EncodedFace]:
        """Several crops at once; empty for none. ValueError if one has another shape than (256, 256, 3)."""
        if not crops:
            return []
        for crop in crops:
            if crop.shape != (CROP_SIZE, CROP_SIZE, 3) or crop.dtype != np.uint8:
                raise ValueError(f"a crop is ({CROP_SIZE}, {CROP_SIZE}, 3) uint8, not {crop.shape} {crop.dtype}")
        points, jacobians, presence = self._run(np.stack(crops))
        return [EncodedFace(Keypoints(points[i], jacobians[i]), float(presence[i])) for i in range(len(crops))]

    def _run(self, crops: RgbArray) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        points, jacobians, presence = self._session.run(_OUTPUTS, {_INPUT: crops})
        count = len(crops)
        assert points.shape == (count, NUM_KEYPOINTS, 2)
        return points, jacobians, presence
