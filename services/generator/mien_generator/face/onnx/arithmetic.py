"""The arithmetic of convolutions: float32, or 8-bit integers with ranges that were calibrated on real motion.

Both classes offer the same operations on feature maps, so that the network is written only once. Float maps are
(B, C, H, W), which ONNX Runtime converts to its blocked layout. Integer maps are (B, H, W, C), the layout of ONNX
Runtime's integer convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mien_generator.face.fomm.rewrite import BATCH_NORM_EPSILON, BatchNorm, phase_kernels
from mien_generator.face.fomm.weights import WeightsError
from mien_generator.face.onnx.graph import CONTRIB, Graph
from mien_shared.keypoints import FloatArray

#: Lowest and highest value at a quantisation point; other values are clipped.
Range = tuple[float, float]

_BYTE_LEVELS = 255
#: Activations are unsigned and weights signed: only for this combination ONNX Runtime has fast kernels on x86.
_WEIGHT_LEVELS = 127
_SMALLEST_SCALE = 1e-12


class NotCalibrated(WeightsError):
    """Ranges for 8-bit integers are missing or not valid."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Feature maps inside a graph.

    stride: distance of two cells in pixels of the picture. point: the quantisation point, which selects the range.
    """

    name: str
    channels: int
    stride: int
    point: str


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one convolution. macs: per output cell. stride: distance of two output cells in picture pixels."""

    macs: int
    stride: int


class Arithmetic(Protocol):
    """Operations on maps of one type; each appends to the graph. Weights are (Cout, Cin, kh, kw) float32."""

    graph: Graph
    work: list[Work]

    def enter(self, maps: Maps) -> Maps:
        """Convert from float32 (B, C, H, W)."""

    def leave(self, maps: Maps) -> Maps:
        """Convert to float32 (B, C, H, W)."""

    def convolution(
        self,
        maps: Maps,
        name: str,
        weight: FloatArray,
        bias: FloatArray,
        point: str,
        *,
        relu: bool = True,
        pads: tuple[int, int, int, int] | None = None,
    ) -> Maps:
        """Convolution, bias and optional ReLU. pads: top, left, bottom, right; by default the size is kept."""

    def halved(self, maps: Maps) -> Maps:
        """The means of 2x2 cells."""

    def doubled(self, maps: Maps) -> Maps:
        """Nearest-neighbour doubling: each cell becomes 2x2 cells."""

    def interleaved(self, phases: Sequence[Maps]) -> Maps:
        """Four maps as one with twice the side: phase 2p + q gives the cells (2i + p, 2j + q)."""

    def beside(self, maps: Sequence[Maps]) -> Maps:
        """Concatenate the channels of maps that share one quantisation point."""

    def stream(self, maps: Maps) -> Maps:
        """The skip path of residual blocks, from float32 (B, C, H, W). It stays float32: roundings would add up."""

    def normalised(self, stream: Maps, name: str, norm: BatchNorm, point: str) -> Maps:
        """Normalise a stream, then ReLU."""

    def added(self, stream: Maps, maps: Maps) -> Maps:
        """Add a block's output to a stream."""

    def ended(self, stream: Maps, point: str) -> Maps:
        """Convert a stream to maps."""


def phases(
    arithmetic: Arithmetic, maps: Maps, name: str, weight: FloatArray, bias: FloatArray, point: str
) -> list[Maps]:
    """A 3x3 convolution and ReLU of doubled maps, computed as four 2x2 convolutions without doubling (rewrite.py)."""
    kernels = phase_kernels(weight)
    return [
        arithmetic.convolution(maps, f"{name}.{p}{q}", kernels[p, q], bias, point, pads=(1 - p, 1 - q, p, q))
        for p in range(2)
        for q in range(2)
    ]


class FloatArithmetic:
    """Arithmetic in float32."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.work: list[Work] = []
        #: All maps with a quantisation point; calibration measures their values.
        self.observed: list[Maps] = []

    def enter(self, maps: Maps) -> Maps:
        return self._observed(maps)

    def leave(self, maps: Maps) -> Maps:
        return maps

    def convolution(
        self,
        maps: Maps,
        name: str,
        weight: FloatArray,
        bias: FloatArray,
        point: str,
        *,
        relu: bool = True,
        pads: tuple[int, int, int, int] | None = None,
    ) -> Maps:
        graph = self.graph
        self.work.append(Work(weight.size, maps.stride))
        value = graph.op(
            "Conv",
            maps.name,
            graph.parameter(f"{name}.weight", weight),
            graph.parameter(f"{name}.bias", bias),
            pads=_pads(weight, pads),
            kernel_shape=list(weight.shape[2:]),
        )
        return self._observed(Maps(graph.op("Relu", value) if relu else value, weight.shape[0], maps.stride, point))

    def halved(self, maps: Maps) -> Maps:
        value = self.graph.op("AveragePool", maps.name, kernel_shape=[2, 2], strides=[2, 2])
        return Maps(value, maps.channels, maps.stride * 2, maps.point)

    def doubled(self, maps: Maps) -> Maps:
        value = self.graph.op(
            "Resize",
            maps.name,
            "",
            self.graph.constant([1, 1, 2, 2]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return Maps(value, maps.channels, maps.stride // 2, maps.point)

    def interleaved(self, phases: Sequence[Maps]) -> Maps:
        together = self.beside(phases)
        value = self.graph.op("DepthToSpace", together.name, blocksize=2, mode="DCR")
        return Maps(value, phases[0].channels, together.stride // 2, together.point)

    def beside(self, maps: Sequence[Maps]) -> Maps:
        value = self.graph.op("Concat", *(each.name for each in maps), axis=1)
        return Maps(value, sum(each.channels for each in maps), maps[0].stride, maps[0].point)

    def stream(self, maps: Maps) -> Maps:
        return maps

    def normalised(self, stream: Maps, name: str, norm: BatchNorm, point: str) -> Maps:
        # ONNX Runtime runs this operator in its blocked layout; with Mul and Add it would convert the layout.
        statistics = zip(
            ("gamma", "beta", "mean", "variance"), (norm.gamma, norm.beta, norm.mean, norm.variance), strict=True
        )
        value = self.graph.op(
            "BatchNormalization",
            stream.name,
            *(self.graph.parameter(f"{name}.{part}", values) for part, values in statistics),
            epsilon=BATCH_NORM_EPSILON,
        )
        return self._observed(Maps(self.graph.op("Relu", value), stream.channels, stream.stride, point))

    def added(self, stream: Maps, maps: Maps) -> Maps:
        return Maps(self.graph.op("Add", stream.name, maps.name), stream.channels, stream.stride, stream.point)

    def ended(self, stream: Maps, point: str) -> Maps:
        return self._observed(Maps(stream.name, stream.channels, stream.stride, point))

    def _observed(self, maps: Maps) -> Maps:
        if maps.point:
            self.observed.append(maps)
        return maps


class IntegerArithmetic:
    """Unsigned 8-bit maps with a scale and zero for each point; signed 8-bit weights with a scale for each filter.

    ranges: for every point. A range that starts at zero clips negative values, which is ReLU. Raises NotCalibrated for
    a point without a range, and for the output of a ReLU with a range that starts below zero.
    """

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], work: list[Work]) -> None:
        self.graph = graph
        self.work = work
        self._ranges = ranges

    def enter(self, maps: Maps) -> Maps:
        value = self.graph.op("QuantizeLinear", maps.name, *self._scale_and_zero(maps.point))
        return self._with(maps, self.graph.op("Transpose", value, perm=[0, 2, 3, 1]))

    def leave(self, maps: Maps) -> Maps:
        value = self.graph.op("Transpose", maps.name, perm=[0, 3, 1, 2])
        return self._with(maps, self.graph.op("DequantizeLinear", value, *self._scale_and_zero(maps.point)))

    def convolution(
        self,
        maps: Maps,
        name: str,
        weight: FloatArray,
        bias: FloatArray,
        point: str,
        *,
        relu: bool = True,
        pads: tuple[int, int, int, int] | None = None,
    ) -> Maps:
        graph = self.graph
        self.work.append(Work(weight.size, maps.stride))
        if relu and self._quantisation(point)[1] != 0:
            raise NotCalibrated(
                f"the range of {point} starts below zero, but its values come from a ReLU: run `mien model calibrate`"
            )
        largest = np.abs(weight).max(axis=(1, 2, 3))
        scales = np.maximum(largest / _WEIGHT_LEVELS, _SMALLEST_SCALE).astype(np.float32)
        integers = np.rint(weight / scales[:, None, None, None]).astype(np.int8)
        # One step of a convolution's sum is the input's scale times the filter's scale.
        steps = np.rint(bias / (self._quantisation(maps.point)[0] * scales.astype(np.float64)))
        value = graph.op(
            "QLinearConv",
            maps.name,
            *self._scale_and_zero(maps.point),
            graph.parameter(f"{name}.weight", integers),
            graph.parameter(f"{name}.scale", scales),
            graph.constant(np.zeros(len(scales)), np.int8),
            *self._scale_and_zero(point),
            graph.parameter(f"{name}.bias", steps.astype(np.int32)),
            domain=CONTRIB,
            channels_last=1,
            pads=_pads(weight, pads),
            kernel_shape=list(weight.shape[2:]),
        )
        return Maps(value, weight.shape[0], maps.stride, point)

    def halved(self, maps: Maps) -> Maps:
        scale_and_zero = self._scale_and_zero(maps.point)
        value = self.graph.op(
            "QLinearAveragePool",
            maps.name,
            *scale_and_zero,
            *scale_and_zero,
            domain=CONTRIB,
            channels_last=1,
            kernel_shape=[2, 2],
            strides=[2, 2],
        )
        return Maps(value, maps.channels, maps.stride * 2, maps.point)

    def doubled(self, maps: Maps) -> Maps:
        value = self.interleaved([maps] * 4).name
        return Maps(value, maps.channels, maps.stride // 2, maps.point)

    def interleaved(self, phases: Sequence[Maps]) -> Maps:
        # Interleave columns by concatenating channels, then rows by concatenating longer rows. With channels last, both
        # are plain copies.
        graph, channels = self.graph, phases[0].channels
        rows = [graph.op("Concat", left.name, right.name, axis=3) for left, right in (phases[:2], phases[2:])]
        # (B, H, 1, 2 * W * C) each
        pairs = graph.op("Concat", *(graph.op("Reshape", row, graph.integers(0, 0, 1, -1)) for row in rows), axis=2)
        shape = graph.op("Mul", graph.op("Shape", phases[0].name), graph.integers(1, 2, 2, 1))
        return Maps(graph.op("Reshape", pairs, shape), channels, phases[0].stride // 2, phases[0].point)

    def beside(self, maps: Sequence[Maps]) -> Maps:
        value = self.graph.op("Concat", *(each.name for each in maps), axis=3)
        return Maps(value, sum(each.channels for each in maps), maps[0].stride, maps[0].point)

    def stream(self, maps: Maps) -> Maps:
        return self._with(maps, self.graph.op("Transpose", maps.name, perm=[0, 2, 3, 1]))

    def normalised(self, stream: Maps, name: str, norm: BatchNorm, point: str) -> Maps:
        scale, shift = norm.affine()
        scaled = self.graph.op("Mul", stream.name, self.graph.parameter(f"{name}.scale", scale))
        value = self.graph.op("Add", scaled, self.graph.parameter(f"{name}.shift", shift))
        return self.ended(Maps(value, stream.channels, stream.stride, stream.point), point)

    def added(self, stream: Maps, maps: Maps) -> Maps:
        value = self.graph.op("DequantizeLinear", maps.name, *self._scale_and_zero(maps.point))
        return self._with(stream, self.graph.op("Add", stream.name, value))

    def ended(self, stream: Maps, point: str) -> Maps:
        value = self.graph.op("QuantizeLinear", stream.name, *self._scale_and_zero(point))
        return Maps(value, stream.channels, stream.stride, point)

    def _scale_and_zero(self, point: str) -> tuple[str, str]:
        scale, zero = self._quantisation(point)
        return (
            self.graph.parameter(f"{point}.scale", np.array(scale, np.float32)),
            self.graph.parameter(f"{point}.zero", np.array(zero, np.uint8)),
        )

    def _quantisation(self, point: str) -> tuple[float, int]:
        """Scale and zero point. The value 0 is always exact, because convolutions pad with it."""
        if point not in self._ranges:
            raise NotCalibrated(f"there is no range for {point}: run `mien model calibrate`")
        low, high = min(self._ranges[point][0], 0.0), max(self._ranges[point][1], 0.0)
        scale = max((high - low) / _BYTE_LEVELS, _SMALLEST_SCALE)
        return scale, round(-low / scale)

    def _with(self, maps: Maps, name: str) -> Maps:
        return Maps(name, maps.channels, maps.stride, maps.point)


def _pads(weight: FloatArray, pads: tuple[int, int, int, int] | None) -> list[int]:
    if pads is not None:
        return list(pads)
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    return [rows, columns, rows, columns]
