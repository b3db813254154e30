"""FOMM's generator as two graphs: `prepare` once for an avatar, `animate` for every frame (docs/decisions/0003, 0009).

The same function as face/fomm/occlusion_generator.py with fewer operations. Every rewrite is exact except for rounding;
tests compare it with torch. The number of faces B and the picture side S may differ in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mien_generator.face.fomm.config import KEYPOINT_VARIANCE, SMALLEST_DETERMINANT, ConfigError, FommConfig
from mien_generator.face.fomm.rewrite import BatchNorm, fold
from mien_generator.face.fomm.shapes import blur_radius, generator_widths
from mien_generator.face.fomm.weights import Arrays
from mien_generator.face.onnx.arithmetic import (
    Arithmetic,
    FloatArithmetic,
    IntegerArithmetic,
    Maps,
    Range,
    Work,
    phases,
)
from mien_generator.face.onnx.graph import Graph
from mien_shared.keypoints import FloatArray

#: Outputs of `prepare` and inputs of `animate`, in this order.
PREPARED = ("features", "picture", "background", "gaussians")

#: TensorProto's numbers for types (onnx.proto3).
_FLOAT, _UINT8 = 1, 2
#: Number of the hourglass's deepest up blocks that double and convolve without a rewrite. On maps of a few cells,
#: reading the weights takes most of the time, and four 2x2 kernels are larger than one 3x3 kernel.
_DIRECT_BLOCKS = 2
#: ONNX Runtime's blocked layout needs multiples of 16 channels (AVX-512); other counts use a slower convolution.
_CHANNEL_BLOCK = 16
#: Radius of the last convolution (7x7), in pixels.
_REACH = 3
# The same radius in cells of 2x2 pixels: three pixels reach at most two cells.
_CELL_REACH = 2


def prepare_graph(config: FommConfig, arrays: Arrays) -> Graph:
    """rgb (B, S, S, 3) uint8 and points (B, K, 2) float32 -> PREPARED.

    features: (B, C, S/4, S/4) with two down blocks; picture, background: (B, 3, s, s) with s = S/4 at the published
    scale; gaussians: (B, K, s, s). All float32.
    """
    graph, weights = Graph("prepare"), _Weights(arrays)
    arithmetic = FloatArithmetic(graph)
    rgb = graph.input("rgb", np.uint8, "B", "S", "S", 3)
    points = graph.input("points", np.float32, "B", config.num_keypoints, 2)
    channels_first = graph.op("Cast", graph.op("Transpose", rgb, perm=[0, 3, 1, 2]), to=_FLOAT)
    picture = Maps(graph.op("Div", channels_first, graph.constant(255)), config.num_channels, 1, "")

    features = arithmetic.convolution(picture, "first", *weights.block("generator.first"), "")
    for level in range(config.generator.num_down_blocks):
        name = f"down_blocks.{level}"
        features = arithmetic.halved(arithmetic.convolution(features, name, *weights.block(f"generator.{name}"), ""))
    small = _blurred(graph, weights, config, picture)
    grid = _Grid(graph, config, small)
    still = graph.op("Unsqueeze", graph.op("Transpose", grid.places, perm=[1, 2, 0]), graph.integers(0))
    batch = graph.op("Concat", _dimension(graph, rgb, 0), graph.integers(1, 1, 1), axis=0)
    background = _sampled(graph, small, graph.op("Expand", still, batch))
    width, channels = generator_widths(config)[-1], config.num_channels
    graph.output(features.name, "features", np.float32, "B", width, "F", "F")
    graph.output(small, "picture", np.float32, "B", channels, "s", "s")
    graph.output(background, "background", np.float32, "B", channels, "s", "s")
    graph.output(grid.gaussians(points), "gaussians", np.float32, "B", config.num_keypoints, "s", "s")
    return graph


@dataclass(frozen=True, slots=True, eq=False)
class AnimateGraph:
    """The graph, the work of its convolutions, and all maps with a quantisation point."""

    graph: Graph
    work: list[Work]
    observed: list[Maps]

    def macs(self, size: int) -> int:
        """Multiply-accumulates for one face `size` pixels wide."""
        return sum(work.macs * (size // work.stride) ** 2 for work in self.work)


def animate_graph(config: FommConfig, arrays: Arrays, ranges: Mapping[str, Range] | None = None) -> AnimateGraph:
    """PREPARED, and points (B, K, 2) and jacobians (B, K, 2, 2) of source and driving -> rgb (B, S, S, 3) uint8.

    A model with `source_residual` has one more input: residual (B, 3, S, S), the source minus the picture at rest
    (docs/decisions/0010).
    ranges: the range of every point, for 8-bit convolutions (calibration.py); without ranges everything is float32.
    Raises ConfigError for a generator without down blocks.
    """
    if config.generator.num_down_blocks < 1:
        raise ConfigError("the ONNX graphs need a generator with at least one down block")
    graph, weights = Graph("animate"), _Weights(arrays)
    exact = FloatArithmetic(graph)
    arithmetic = exact if ranges is None else IntegerArithmetic(graph, ranges, exact.work)
    keypoints, channels, width = config.num_keypoints, config.num_channels, generator_widths(config)[-1]
    features = graph.input("features", np.float32, "B", width, "F", "F")
    picture = graph.input("picture", np.float32, "B", channels, "s", "s")
    background = graph.input("background", np.float32, "B", channels, "s", "s")
    gaussians = graph.input("gaussians", np.float32, "B", keypoints, "s", "s")
    source, driving = (
        _Keypoints(
            graph.input(f"{whose}_points", np.float32, "B", keypoints, 2),
            graph.input(f"{whose}_jacobians", np.float32, "B", keypoints, 2, 2),
        )
        for whose in ("source", "driving")
    )
    grid = _Grid(graph, config, picture)
    motions = _affine_motions(graph, source, driving)  # (B, K, 2, 3)
    inputs = _network_input(graph, config, grid, motions, (picture, background, gaussians), driving)
    mask, occlusion = _mask_and_occlusion(arithmetic, exact, weights, config, inputs)
    deformation = _deformation(graph, grid, motions, mask)  # (B, 2, s, s)
    ratio = inputs.stride / 2**config.generator.num_down_blocks
    moved = _sampled(graph, features, graph.op("Transpose", _resized(graph, deformation, ratio), perm=[0, 2, 3, 1]))
    visible = graph.op("Mul", moved, _resized(graph, occlusion, ratio))
    maps = Maps(visible, width, 2**config.generator.num_down_blocks, "")
    prediction = _prediction(graph, arithmetic, exact, weights, config, maps)
    if config.source_residual:
        # If the face is at rest and everything is visible, the result equals the source in every pixel.
        residual = graph.input("residual", np.float32, "B", channels, "S", "S")
        away = graph.op("Sub", deformation, grid.places)
        large = _Grid(graph, config, residual)
        place = graph.op("Add", _resized(graph, away, inputs.stride), large.places)
        lost = _sampled(graph, residual, graph.op("Transpose", place, perm=[0, 2, 3, 1]))
        shown = graph.op("Mul", lost, _resized(graph, occlusion, inputs.stride))
        prediction = graph.op("Clip", graph.op("Add", prediction, shown), graph.constant(0), graph.constant(1))
    rounded = graph.op("Round", graph.op("Mul", prediction, graph.constant(255)))
    pixels = graph.op("Transpose", graph.op("Cast", rounded, to=_UINT8), perm=[0, 2, 3, 1])
    graph.output(pixels, "rgb", np.uint8, "B", "S", "S", channels)
    return AnimateGraph(graph, exact.work, exact.observed)


class _Weights:
    """Tensors by their published names, as float32."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def tensor(self, name: str) -> FloatArray:
        return self._arrays[name].astype(np.float32)

    def convolution(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")

    def norm(self, name: str) -> BatchNorm:
        return BatchNorm(*(self.tensor(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")))

    def block(self, name: str) -> tuple[FloatArray, FloatArray]:
        """A convolution with the normalisation after it folded in."""
        return fold(*self.convolution(f"{name}.conv"), self.norm(f"{name}.norm"))


@dataclass(frozen=True, slots=True)
class _Keypoints:
    points: str
    jacobians: str


class _Grid:
    """Coordinates of the cells of square maps, as in coordinate_grid of first_order.py.

    axis: (s,) coordinates of the columns, equal to those of the rows. x, y: (s, s).
    """

    def __init__(self, graph: Graph, config: FommConfig, maps: str) -> None:
        self._graph = graph
        self.side = _dimension(graph, maps, 2)  # (1,)
        length = graph.op("Cast", graph.op("Squeeze", self.side), to=_FLOAT)
        index = graph.op("Range", graph.constant(0), length, graph.constant(1))
        one, two = graph.constant(1), graph.constant(2)
        if config.pixel_centres:  # (2i + 1) / s - 1
            doubled, spans = graph.op("Add", graph.op("Mul", index, two), one), length
        else:  # 2i / (s - 1) - 1
            doubled, spans = graph.op("Mul", index, two), graph.op("Sub", length, one)
        self.axis = graph.op("Sub", graph.op("Div", doubled, spans), one)
        square = graph.op("Concat", self.side, self.side, axis=0)
        self.x = graph.op("Expand", self.axis, square)
        self.y = graph.op("Expand", graph.op("Unsqueeze", self.axis, graph.integers(1)), square)
        layers = [graph.op("Unsqueeze", each, graph.integers(0)) for each in (self.x, self.y)]
        #: (2, s, s)
        self.places = graph.op("Concat", *layers, axis=0)
        flat = [graph.op("Reshape", each, graph.integers(1, -1)) for each in (self.x, self.y)]
        ones = graph.op("Add", graph.op("Mul", flat[0], graph.constant(0)), one)
        #: (3, s * s): x, y, 1, so that an affine motion is one matrix product.
        self.homogeneous = graph.op("Concat", *flat, ones, axis=0)

    def gaussians(self, points: str) -> str:
        """(B, K, 2) -> (B, K, s, s): a Gaussian at each keypoint, as the product of one along x and one along y."""
        graph = self._graph
        bells = []
        for coordinate, axis in ((0, 2), (1, 3)):
            place = graph.op("Slice", points, *(graph.integers(n) for n in (coordinate, coordinate + 1, 2)))
            offset = graph.op("Sub", self.axis, place)  # (B, K, s)
            squared = graph.op("Mul", offset, offset)
            bell = graph.op("Exp", graph.op("Mul", squared, graph.constant(-0.5 / KEYPOINT_VARIANCE)))
            bells.append(graph.op("Unsqueeze", bell, graph.integers(axis)))
        return graph.op("Mul", *bells)


def _affine_motions(graph: Graph, source: _Keypoints, driving: _Keypoints) -> str:
    """(B, K, 2, 3): FOMM's eq. 4 as A z + t with A = J_source J_driving^-1 and t = p_source - A p_driving."""
    turn, back = graph.constant([[0, 1], [-1, 0]]), graph.constant([[0, -1], [1, 0]])
    transposed = graph.op("Transpose", driving.jacobians, perm=[0, 1, 3, 2])
    adjugate = graph.op("MatMul", back, graph.op("MatMul", transposed, turn))
    # J times its transposed adjugate, entry by entry, has each of the determinant's two products twice.
    pairs = graph.op("Mul", driving.jacobians, graph.op("Transpose", adjugate, perm=[0, 1, 3, 2]))
    twice = graph.op("ReduceSum", pairs, graph.integers(2, 3), keepdims=1)
    determinant = graph.op("Mul", twice, graph.constant(0.5))
    magnitude = graph.op("Max", graph.op("Abs", determinant), graph.constant(SMALLEST_DETERMINANT))
    signed = graph.op("Where", graph.op("Less", determinant, graph.constant(0)), graph.op("Neg", magnitude), magnitude)
    turned = graph.op("MatMul", source.jacobians, graph.op("Div", adjugate, signed))  # A
    column = graph.integers(3)
    from_here = graph.op("MatMul", turned, graph.op("Unsqueeze", driving.points, column))
    shift = graph.op("Sub", graph.op("Unsqueeze", source.points, column), from_here)
    return graph.op("Concat", turned, shift, axis=3)


def _network_input(
    graph: Graph, config: FommConfig, grid: _Grid, motions: str, source: tuple[str, str, str], driving: _Keypoints
) -> Maps:
    """The hourglass's input, in the order of _input_order: background, heatmaps, moved pictures, zeros."""
    picture, background, gaussians = source
    keypoints, channels = config.num_keypoints, config.num_channels
    places = graph.op(
        "MatMul",
        graph.op("Transpose", grid.homogeneous, perm=[1, 0]),
        graph.op("Transpose", motions, perm=[0, 1, 3, 2]),
    )  # (B, K, s * s, 2)
    tall = graph.op("Concat", graph.integers(0, -1), grid.side, graph.integers(2), axis=0)
    moved = _sampled(graph, picture, graph.op("Reshape", places, tall))  # (B, 3, K * s, s)
    shape = graph.op("Concat", graph.integers(0, channels * keypoints), grid.side, grid.side, axis=0)
    moved = graph.op("Reshape", moved, shape)
    heatmaps = graph.op("Sub", grid.gaussians(driving.points), gaussians)
    value = graph.op("Concat", background, heatmaps, moved, axis=1)
    missing = -len(_input_order(config)) % _CHANNEL_BLOCK
    if missing:
        value = graph.op("Pad", value, graph.integers(0, 0, 0, 0, 0, missing, 0, 0))
    stride = round(1 / config.generator.dense_motion.scale_factor)
    return Maps(value, len(_input_order(config)) + missing, stride, "motion.input")


def _input_order(config: FommConfig) -> list[int]:
    """The published index of each of our input channels. Published order: for each motion heatmap, then picture.

    The background's heatmap is always zero and is left out.
    """
    keypoints, channels = range(1, config.num_keypoints + 1), range(1, config.num_channels + 1)
    each = config.num_channels + 1
    return [*channels, *(k * each for k in keypoints), *(k * each + c for c in channels for k in keypoints)]


def _reordered(weight: FloatArray, config: FommConfig, after: int = 0) -> FloatArray:
    """A kernel for our channel order. Its input channels from `after` on are in the published order."""
    ours = weight[:, after:][:, _input_order(config)]
    missing = -ours.shape[1] % _CHANNEL_BLOCK
    return np.concatenate([weight[:, :after], np.pad(ours, ((0, 0), (0, missing), (0, 0), (0, 0)))], axis=1)


def _mask_and_occlusion(
    arithmetic: Arithmetic, exact: FloatArithmetic, weights: _Weights, config: FommConfig, inputs: Maps
) -> tuple[str, str]:
    """The mask of the keypoints (B, K, s, s), without the background's, and the occlusion map (B, 1, s, s)."""
    graph, hourglass = arithmetic.graph, config.generator.dense_motion
    prefix = "generator.dense_motion_network"
    scales = [arithmetic.enter(inputs)]
    for level in range(hourglass.num_blocks):
        name = f"encoder.down_blocks.{level}"
        weight, bias = weights.block(f"{prefix}.hourglass.{name}")
        if level == 0:
            weight = _reordered(weight, config)
        maps = arithmetic.convolution(scales[-1], name, weight, bias, f"motion.level{level + 1}")
        scales.append(arithmetic.halved(maps))
    maps = scales.pop()
    for block, skip in enumerate(reversed(scales)):
        name = f"decoder.up_blocks.{block}"
        level = len(scales) - 1 - block
        weight, bias = weights.block(f"{prefix}.hourglass.{name}")
        point = skip.point if level else "motion.top"
        if block < _DIRECT_BLOCKS:
            maps = arithmetic.convolution(arithmetic.doubled(maps), name, weight, bias, point)
        else:
            maps = arithmetic.interleaved(phases(arithmetic, maps, name, weight, bias, point))
        if level:
            maps = arithmetic.beside([maps, skip])
    # Rounded logits would move the face: the heads are always float32 and read the unrounded input.
    together = exact.beside([arithmetic.leave(maps), inputs])
    heads = [weights.convolution(f"{prefix}.{head}") for head in ("mask", "occlusion")]
    weight, bias = (np.concatenate(parts) for parts in zip(*heads, strict=True))
    weight = _reordered(weight, config, after=maps.channels)
    logits = exact.convolution(together, "heads", weight, bias, "", relu=False).name
    motions = config.num_keypoints + 1
    shares = graph.op("Softmax", _channels(graph, logits, 0, motions), axis=1)
    return _channels(graph, shares, 1, motions), graph.op("Sigmoid", _channels(graph, logits, motions, motions + 1))


def _deformation(graph: Graph, grid: _Grid, motions: str, mask: str) -> str:
    """(B, 2, s, s): the blended motions. The masks m_k sum to one, so the result is z + sum_k m_k (A_k z + t_k - z)."""
    away = graph.op("Sub", motions, graph.constant([[1, 0, 0], [0, 1, 0]]))  # (B, K, 2, 3)
    keypoints_last = graph.op("Transpose", graph.op("Reshape", away, graph.integers(0, 0, 6)), perm=[0, 2, 1])
    blended = graph.op("MatMul", keypoints_last, graph.op("Reshape", mask, graph.integers(0, 0, -1)))  # (B, 6, s * s)
    affine = graph.op("Reshape", blended, graph.integers(0, 2, 3, -1))
    moved = graph.op("ReduceSum", graph.op("Mul", affine, grid.homogeneous), graph.integers(2), keepdims=0)
    place = graph.op("Add", moved, graph.op("Slice", grid.homogeneous, *(graph.integers(n) for n in (0, 2, 0))))
    return graph.op("Reshape", place, graph.op("Concat", graph.integers(0, 2), grid.side, grid.side, axis=0))


def _prediction(
    graph: Graph,
    arithmetic: Arithmetic,
    exact: FloatArithmetic,
    weights: _Weights,
    config: FommConfig,
    maps: Maps,
) -> str:
    """Bottleneck, up blocks and last convolution -> (B, 3, S, S) in [0, 1]."""
    stream = arithmetic.stream(maps)
    for index in range(config.generator.num_bottleneck_blocks):
        name = f"bottleneck.r{index}"
        inner = fold(*weights.convolution(f"generator.{name}.conv1"), weights.norm(f"generator.{name}.norm2"))
        y = arithmetic.normalised(stream, f"{name}.norm1", weights.norm(f"generator.{name}.norm1"), f"{name}.in")
        y = arithmetic.convolution(y, f"{name}.conv1", *inner, f"{name}.between")
        outer = weights.convolution(f"generator.{name}.conv2")
        y = arithmetic.convolution(y, f"{name}.conv2", *outer, f"{name}.out", relu=False)
        stream = arithmetic.added(stream, y)
    maps = arithmetic.ended(stream, "up.0")
    blocks = config.generator.num_down_blocks
    for block in range(blocks - 1):
        name = f"up_blocks.{block}"
        maps = arithmetic.interleaved(
            phases(arithmetic, maps, name, *weights.block(f"generator.{name}"), f"up.{block + 1}")
        )
    name = f"up_blocks.{blocks - 1}"
    last = phases(arithmetic, maps, name, *weights.block(f"generator.{name}"), f"up.{blocks}")
    # The last doubling is never executed. The 7x7 convolution after it runs on the four phases instead: first along
    # columns, for even and for odd columns, then along rows. Its three output channels would use only a part of a
    # vector; split like this, the first step has forty-two.
    columns, rows, bias = _split(*weights.convolution("generator.final"))
    sides = []
    for parity in range(2):
        side = arithmetic.beside([last[parity], last[2 + parity]])
        zeros = np.zeros(columns.shape[0], np.float32)
        name = f"final.columns{parity}"
        sides.append(arithmetic.convolution(side, name, columns, zeros, "final.columns", relu=False))
    together = arithmetic.leave(arithmetic.beside(sides))
    logits = exact.convolution(together, "final.rows", rows, bias, "", relu=False)  # (B, 4 * 3, S/2, S/2)
    return graph.op("DepthToSpace", graph.op("Sigmoid", logits.name), blocksize=2, mode="DCR")


def _split(weight: FloatArray, bias: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Split the 7x7 convolution (O, C, 7, 7) of maps with phases (p, q), p for rows and q for columns, into two.

    columns: (16n, 2 C, 5, 1), runs on the two phases p of one q. Output (p', dx, o) sums over one column of the kernel.
    rows: (4 O, 2 * 16n, 1, 5), runs on the outputs for both q. Output (p', q', o) adds the columns that it needs.
    """
    outputs, inputs = weight.shape[:2]
    taps = 2 * _REACH + 1
    cells = 2 * _CELL_REACH + 1
    columns = np.zeros((2, taps, outputs, 2, inputs, cells, 1), np.float32)
    rows = np.zeros((2, 2, outputs, 2, 2, taps, outputs, 1, cells), np.float32)
    for at in range(2):
        for tap in range(-_REACH, _REACH + 1):
            cell, phase = divmod(at + tap, 2)
            # In rows of the picture: output row 2i + at reads row 2(i + cell) + phase.
            columns[at, :, :, phase, :, cell + _CELL_REACH, 0] = weight[:, :, tap + _REACH, :].transpose(2, 0, 1)
            # The same in columns.
            for output in range(outputs):
                for row in range(2):
                    rows[row, at, output, phase, row, tap + _REACH, output, 0, cell + _CELL_REACH] = 1
    made = 2 * taps * outputs
    missing = -made % _CHANNEL_BLOCK
    columns = np.pad(columns.reshape(made, 2 * inputs, cells, 1), ((0, missing), (0, 0), (0, 0), (0, 0)))
    rows = np.pad(rows.reshape(4 * outputs, 2, made, 1, cells), ((0, 0), (0, 0), (0, missing), (0, 0), (0, 0)))
    return columns, rows.reshape(4 * outputs, 2 * (made + missing), 1, cells), np.tile(bias, 4)


def _blurred(graph: Graph, weights: _Weights, config: FommConfig, picture: Maps) -> str:
    scale = config.generator.dense_motion.scale_factor
    if scale == 1:
        return picture.name
    kernel = graph.parameter("down.weight", weights.tensor("generator.dense_motion_network.down.weight"))
    step, radius = round(1 / scale), blur_radius(scale)
    return graph.op(
        "Conv",
        picture.name,
        kernel,
        group=config.num_channels,
        strides=[step, step],
        pads=[radius] * 4,
        kernel_shape=[2 * radius + 1] * 2,
    )


def _sampled(graph: Graph, maps: str, places: str) -> str:
    # align_corners as in first_order.sample, which explains it.
    return graph.op("GridSample", maps, places, mode="linear", padding_mode="zeros", align_corners=0)


def _resized(graph: Graph, maps: str, ratio: float) -> str:
    if ratio == 1:
        return maps
    return graph.op("Resize", maps, "", graph.constant([1, 1, ratio, ratio]), mode="linear")


def _dimension(graph: Graph, value: str, axis: int) -> str:
    """(1,): the length of one axis."""
    return graph.op("Shape", value, start=axis, end=axis + 1)


def _channels(graph: Graph, value: str, start: int, end: int) -> str:
    return graph.op("Slice", value, *(graph.integers(n) for n in (start, end, 1)))
