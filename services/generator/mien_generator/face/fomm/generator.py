"""The FaceGenerator that runs First Order Motion Model: once per avatar, then in batches across avatars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mien_generator.face.contract import MAX_FACE_SIZE, AvatarFace, FaceRequest, RgbArray
from mien_generator.face.fomm.checkpoint import FommWeights, read_weights
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.occlusion_generator import GeneratorSource, OcclusionAwareGenerator
from mien_generator.face.fomm.weights import MismatchedWeights
from mien_generator.face.picture import scaled
from mien_shared.motion import NUM_KEYPOINTS, Keypoints

Precision = Literal["float32", "float16", "bfloat16"]

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class DeviceMissing(RuntimeError):
    """A device that torch does not know or cannot reach."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFomm:
    """What was computed from one avatar, on the generator's device.

    source: a batch of one. size: pixels.
    """

    size: int
    source: GeneratorSource


class FommGenerator:
    """FaceGenerator on FOMM's occlusion-aware generator.

    size: side of the faces in pixels, a multiple of the configuration's `size_multiple`.
    precision: what the networks run in; keypoints and motion stay float32. float32 is for the CPU, float16 and
    bfloat16 for CUDA devices (a CPU with bf16 instructions runs bfloat16 too).
    Raises ConfigError for a size that does not pass through the network, MismatchedWeights for weights with another
    number of keypoints than a motion packet carries, DeviceMissing. Not thread-safe: one owner thread per device.
    """

    name = "fomm"

    def __init__(
        self,
        weights: FommWeights,
        *,
        size: int = MAX_FACE_SIZE,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        weights.config.check_size(size)
        if weights.config.num_keypoints != NUM_KEYPOINTS:
            raise MismatchedWeights(
                f"these weights have {weights.config.num_keypoints} keypoints, a motion packet carries {NUM_KEYPOINTS}"
            )
        self.size = size
        self._device = _reachable(device)
        self._dtype = _DTYPES[precision]
        # Tensor cores and oneDNN both want the channels innermost; results do not depend on it.
        self._network: OcclusionAwareGenerator | None = weights.generator().to(
            self._device, self._dtype, memory_format=torch.channels_last
        )

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        size: int = MAX_FACE_SIZE,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> FommGenerator:
        """From a file of `mien model import`; raises WeightsError or OSError besides what the constructor raises."""
        return cls(read_weights(path), size=size, device=device, precision=precision)

    def prepare(self, avatar: AvatarFace) -> PreparedFomm:
        """Source features, small source picture and source keypoints (about 6 of 31 G MAC at half width)."""
        rgb = scaled(avatar.rgb, self.size)
        with torch.inference_mode():
            picture = picture_tensor(rgb, self._device).to(self._dtype, memory_format=torch.channels_last)
            keypoints = KeypointTensors.of([avatar.keypoints], self._device)
            return PreparedFomm(self.size, self._open_network().prepare(picture, keypoints))

    def animate(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> list[RgbArray]:
        """All requests in one batch, whichever avatars they are for; raises ValueError for a face of another size."""
        if not requests:
            return []
        with torch.inference_mode():
            pixels = self.predict(requests).mul(255).round_().to(torch.uint8)
            return list(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy())

    def predict(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> torch.Tensor:
        """(B, 3, size, size) float32 in [0, 1] on the device: what `animate` rounds to bytes. B is at least 1."""
        for request in requests:
            if request.prepared.size != self.size:
                raise ValueError(f"a face prepared at {request.prepared.size} pixels, the generator makes {self.size}")
        with torch.inference_mode():
            source = GeneratorSource.stack([request.prepared.source for request in requests])
            driving = KeypointTensors.of([request.driving for request in requests], self._device)
            return self._open_network()(source, driving).prediction.float()

    def close(self) -> None:
        """Drop the network; prepared faces go with whoever holds them."""
        self._network = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _open_network(self) -> OcclusionAwareGenerator:
        if self._network is None:
            raise RuntimeError("the generator is closed")
        return self._network


class FommKeypointFinder:
    """The weights' own keypoint detector on pictures: float32, because its output travels and is differentiated."""

    def __init__(self, weights: FommWeights, *, device: str | torch.device = "cpu") -> None:
        self._device = _reachable(device)
        self._detector = weights.keypoint_detector().to(self._device)

    def find(self, pictures: Sequence[RgbArray]) -> list[Keypoints]:
        """pictures: (S, S, 3) uint8 RGB each, all of one size."""
        with torch.inference_mode():
            batch = torch.cat([picture_tensor(picture, self._device) for picture in pictures])
            return self._detector(batch).unstack()


def _reachable(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissing(f"torch knows no device {str(name)!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceMissing(f"device {str(name)!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def picture_tensor(rgb: RgbArray, device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].float() / 255
