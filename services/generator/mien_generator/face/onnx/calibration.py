"""Finds the ranges for 8-bit convolutions: measures the values at every quantisation point on real motion.

A range need not include every value: a few outliers would make the steps coarse for all other values. Several
fractions of the range from the smallest to the largest value are tried. The one with the least squared error from
rounding and clipping is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mien_generator.face.contract import AvatarFace, FaceRequest
from mien_generator.face.fomm.weights import StoredWeights
from mien_generator.face.onnx.arithmetic import Range
from mien_generator.face.onnx.generator import OnnxGenerator
from mien_generator.face.onnx.graph import Graph
from mien_generator.face.onnx.network import animate_graph, prepare_graph
from mien_generator.face.onnx.sessions import Network, Session, session_options
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

#: Number of values kept from each map of each face; enough to know its distribution.
_SAMPLES_PER_MAP = 4096
#: Fractions of the full range to try.
_FRACTIONS = np.linspace(0.3, 1.0, 36)
_LEVELS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """An avatar and the motion that drives it: keypoints in the same crop."""

    avatar: AvatarFace
    driving: Sequence[Keypoints]

    @classmethod
    def read(cls, folder: Path, frames: int, *, offset: float = 0) -> Clip:
        """Read a folder of labelled crops: frames.npy (N, S, S, 3) uint8 and keypoints.npy (N, 10, 6) float32.

        The first frame with a face is the avatar. `frames` evenly spaced frames are its motion, shifted by `offset`
        steps. Raises OSError, or ValueError if the files have other contents.
        """
        pictures = np.load(folder / "frames.npy", mmap_mode="r")
        rows = np.load(folder / "keypoints.npy")
        if pictures.ndim != 4 or pictures.dtype != np.uint8 or rows.shape[1:] != (NUM_KEYPOINTS, 6):
            raise ValueError(f"{folder.name} does not contain labelled crops")
        found = np.flatnonzero(np.isfinite(rows).all(axis=(1, 2)))
        if not found.size:
            raise ValueError(f"{folder.name} has no frame with a face")
        step = len(found) / frames
        chosen = found[((np.arange(frames) + offset) * step).astype(int) % len(found)]
        keypoints = [Keypoints.from_rows(rows[index]) for index in dict.fromkeys(chosen.tolist())]
        first = int(found[0])
        return cls(AvatarFace(np.ascontiguousarray(pictures[first]), Keypoints.from_rows(rows[first])), keypoints)


def calibrate(weights: StoredWeights, clips: Iterable[Clip], *, size: int, threads: int = 0) -> dict[str, Range]:
    """The range of every quantisation point. Needs the `onnx` package."""
    made = animate_graph(weights.config, weights.arrays)
    graph, watched = made.graph, {}
    for index, maps in enumerate(made.observed):
        name = f"observed.{index}"
        graph.output(maps.name, name, np.float32, "B", maps.channels, f"{name}.rows", f"{name}.columns")
        watched[name] = maps.point
    animate = _SamplingSession(opened(graph, threads), watched)
    prepare = Session(opened(prepare_graph(weights.config, weights.arrays), threads))
    generator = OnnxGenerator(Network(weights.config, "float32", "cpu", prepare, animate), size=size)
    for clip in clips:
        prepared = generator.prepare(clip.avatar)
        for driving in clip.driving:
            generator.animate([FaceRequest(prepared, driving)])
    return {point: _least_error(np.concatenate(values)) for point, values in animate.seen.items()}


def opened(graph: Graph, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph that is not stored in a file, on the CPU."""
    options = session_options(graph, threads)
    return onnxruntime.InferenceSession(graph.serialised({}), options, providers=["CPUExecutionProvider"])


def psnr(generator: OnnxGenerator, reference: OnnxGenerator, clips: Iterable[Clip]) -> list[float]:
    """PSNR of one generator's faces against another's, in dB, one value for every frame of motion."""
    found = []
    for clip in clips:
        both = [each.prepare(clip.avatar) for each in (generator, reference)]
        for driving in clip.driving:
            (face,), (exact,) = (
                each.animate([FaceRequest(prepared, driving)])
                for each, prepared in zip((generator, reference), both, strict=True)
            )
            error = np.square(np.asarray(face, np.float64) - np.asarray(exact, np.float64)).mean()
            found.append(float(10 * np.log10(255**2 / max(error, 1e-6))))
    return found


class _SamplingSession(Session):
    """Keeps a sample of the values of the watched outputs, by quantisation point."""

    def __init__(self, session: onnxruntime.InferenceSession, watched: Mapping[str, str]) -> None:
        super().__init__(session)
        self._watched = watched
        self.seen: dict[str, list[NDArray[np.float32]]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = super().run(inputs)
        for name, point in self._watched.items():
            values = outputs.pop(name).reshape(-1)
            # With an odd stride the sample covers every column. The extremes are always kept.
            stride = max(1, values.size // _SAMPLES_PER_MAP) | 1
            kept = np.concatenate([values[::stride], [values.min(), values.max()]]).astype(np.float32)
            self.seen.setdefault(point, []).append(kept)
        return outputs


def _least_error(values: NDArray[np.float32]) -> Range:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    best, least = (low, high), np.inf
    for fraction in _FRACTIONS:
        scale = max((high - low) * fraction / _LEVELS, 1e-12)
        zero = round(-low * fraction / scale)
        steps = np.clip(np.rint(values / scale) + zero, 0, _LEVELS) - zero
        error = float(np.square(values - steps * scale).mean())
        if error < least:
            best, least = (low * fraction, high * fraction), error
    return best
