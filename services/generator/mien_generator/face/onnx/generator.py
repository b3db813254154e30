"""The FaceGenerator that runs FOMM with ONNX Runtime: the backend of the default install, on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import MAX_FACE_SIZE, AvatarFace, FacePicture, FaceRequest
from mien_generator.face.fomm.weights import MismatchedWeights
from mien_generator.face.onnx.files import ModelFiles
from mien_generator.face.onnx.sessions import Network, Precision
from mien_generator.face.picture import scaled
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

#: Faces in one run on a CPU: more would not fit its caches. Other devices run all faces at once.
_CPU_BATCH = 1


@dataclass(frozen=True, slots=True, eq=False)
class PreparedOnnx:
    """A prepared avatar in host memory: 6.9 MB at 384 pixels and half width.

    size: pixels. arrays: the inputs of `animate` that do not depend on the frame, each as a batch of one.
    """

    size: int
    arrays: dict[str, NDArray[np.float32]]


class OnnxGenerator:
    """FaceGenerator that runs the two graphs. Generators of several sizes may share a network.

    size: side of the faces in pixels, a multiple of the configuration's `size_multiple`.
    Raises ConfigError for a size that the network cannot process, MismatchedWeights for a number of keypoints that
    differs from a motion packet's. Not thread-safe: one owner thread per device.
    """

    name = "onnx"

    def __init__(self, network: Network, *, size: int = MAX_FACE_SIZE) -> None:
        network.config.check_size(size)
        if network.config.num_keypoints != NUM_KEYPOINTS:
            raise MismatchedWeights(
                f"the weights have {network.config.num_keypoints} keypoints, but a motion packet has {NUM_KEYPOINTS}"
            )
        self.size = size
        self.precision = network.precision
        self._network: Network | None = network
        self._batch = _CPU_BATCH if network.device == "cpu" else None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        size: int = MAX_FACE_SIZE,
        device: str = "cpu",
        precision: Precision = "auto",
        threads: int = 0,
    ) -> OnnxGenerator:
        """Load a safetensors file with the graphs next to it; raises the errors of ModelFiles.read and Network.open."""
        files = ModelFiles.read(path)
        return cls(Network.open(files, device=device, precision=precision, threads=threads), size=size)

    def prepare(self, avatar: AvatarFace) -> PreparedOnnx:
        """Compute source features, small pictures and keypoints (about 6 of 31 G MAC at half width).

        A model with a source residual also needs the face at rest, which costs one more run of `animate`.
        """
        network = self._open_network()
        rgb = np.ascontiguousarray(scaled(avatar.rgb, self.size))[None]
        keypoints = avatar.keypoints
        arrays = network.prepare.run({"rgb": rgb, "points": _array(keypoints.points)})
        arrays |= {"source_points": _array(keypoints.points), "source_jacobians": _array(keypoints.jacobians)}
        if network.config.source_residual:
            arrays["residual"] = np.zeros((1, rgb.shape[3], *rgb.shape[1:3]), np.float32)
            at_rest = network.animate.run(arrays | _driving([keypoints]))["rgb"]
            lost = (rgb.astype(np.float32) - at_rest) / 255
            arrays["residual"] = np.ascontiguousarray(lost.transpose(0, 3, 1, 2))
        return PreparedOnnx(self.size, arrays)

    def animate(self, requests: Sequence[FaceRequest[PreparedOnnx]]) -> list[FacePicture]:
        """Make (size, size, 3) uint8 RGB faces; requests may mix avatars. Raises ValueError for another size."""
        for request in requests:
            if request.prepared.size != self.size:
                raise ValueError(
                    f"the face was prepared at {request.prepared.size} pixels, but this generator makes {self.size}"
                )
        batch = self._batch or len(requests)
        faces: list[FacePicture] = []
        for start in range(0, len(requests), batch):
            faces.extend(self._run(requests[start : start + batch]))
        return faces

    def close(self) -> None:
        """Drop the reference to the network; a generator of another size may still use it."""
        self._network = None

    def _run(self, requests: Sequence[FaceRequest[PreparedOnnx]]) -> NDArray[np.uint8]:
        prepared = [request.prepared.arrays for request in requests]
        inputs: dict[str, NDArray[Any]] = {
            name: prepared[0][name] if len(prepared) == 1 else np.concatenate([each[name] for each in prepared])
            for name in prepared[0]
        }
        driving = _driving([request.driving for request in requests])
        rgb: NDArray[np.uint8] = self._open_network().animate.run(inputs | driving)["rgb"]
        return rgb

    def _open_network(self) -> Network:
        if self._network is None:
            raise RuntimeError("the generator is closed")
        return self._network


def _driving(keypoints: Sequence[Keypoints]) -> dict[str, NDArray[np.float32]]:
    return {
        "driving_points": np.stack([each.points for each in keypoints]).astype(np.float32, copy=False),
        "driving_jacobians": np.stack([each.jacobians for each in keypoints]).astype(np.float32, copy=False),
    }


def _array(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float32, copy=False)[None]
