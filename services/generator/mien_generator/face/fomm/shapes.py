"""Shapes of every tensor of a configuration's networks, by published name. Needs only numpy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from mien_generator.face.fomm.config import FommConfig, HourglassConfig
from mien_shared.keypoints import FloatArray

Shape = tuple[int, ...]


def tensor_shapes(config: FommConfig) -> dict[str, Shape]:
    """Published name -> shape, for every tensor in the weights of a configuration."""
    generator = config.generator
    widths = generator_widths(config)
    shapes = dict(_block("generator.first", config.num_channels, widths[0], 7))
    for level, (wide, deep) in enumerate(pairwise(widths)):
        shapes.update(_block(f"generator.down_blocks.{level}", wide, deep, 3))
    for block in range(generator.num_bottleneck_blocks):
        for half in (1, 2):
            shapes.update(_convolution(f"generator.bottleneck.r{block}.conv{half}", widths[-1], widths[-1], 3))
            shapes.update(_normalisation(f"generator.bottleneck.r{block}.norm{half}", widths[-1]))
    for level, (deep, wide) in enumerate(pairwise(reversed(widths))):
        shapes.update(_block(f"generator.up_blocks.{level}", deep, wide, 3))
    shapes.update(_convolution("generator.final", widths[0], config.num_channels, 7))

    motions = config.num_keypoints + 1
    inputs = motions * (config.num_channels + 1)
    dense_motion = "generator.dense_motion_network"
    shapes.update(_hourglass(dense_motion, "hourglass", generator.dense_motion, inputs, config.num_channels))
    features = hourglass_widths(generator.dense_motion)[0] + inputs
    shapes.update(_convolution(f"{dense_motion}.mask", features, motions, 7))
    shapes.update(_convolution(f"{dense_motion}.occlusion", features, 1, 7))

    detector = config.keypoint_detector
    if detector is not None:
        shapes.update(_hourglass("kp_detector", "predictor", detector, config.num_channels, config.num_channels))
        features = hourglass_widths(detector)[0] + config.num_channels
        shapes.update(_convolution("kp_detector.kp", features, config.num_keypoints, 7))
        shapes.update(_convolution("kp_detector.jacobian", features, 4 * config.num_keypoints, 7))
    return shapes


def blank_arrays(config: FommConfig) -> dict[str, FloatArray]:
    """An array of zeros for every tensor, to build graphs for which only the shapes matter."""
    return {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}


def generator_widths(config: FommConfig) -> list[int]:
    """Channels at full size and after each down block."""
    generator = config.generator
    levels = range(generator.num_down_blocks + 1)
    return [min(generator.max_features, generator.block_expansion * 2**level) for level in levels]


def hourglass_widths(config: HourglassConfig) -> list[int]:
    """Channels of the decoder at each level, the topmost first. In the encoder, level 0 is the input itself."""
    return [min(config.max_features, config.block_expansion * 2**level) for level in range(config.num_blocks + 1)]


def blur_radius(scale_factor: float) -> int:
    """Radius of the anti-aliasing kernel in pixels: 4 standard deviations, each (1 / scale_factor - 1) / 2."""
    return 2 * (round(1 / scale_factor) - 1)


def _hourglass(
    prefix: str, name: str, config: HourglassConfig, inputs: int, channels: int
) -> Iterator[tuple[str, Shape]]:
    widths = hourglass_widths(config)
    if config.scale_factor != 1:
        side = 2 * blur_radius(config.scale_factor) + 1
        yield f"{prefix}.down.weight", (channels, 1, side, side)
    for level, (wide, deep) in enumerate(pairwise([inputs, *widths[1:]])):
        yield from _block(f"{prefix}.{name}.encoder.down_blocks.{level}", wide, deep, 3)
    for block, level in enumerate(range(config.num_blocks, 0, -1)):
        # Except at the deepest level, the input is the previous block's output and the skip of the same width.
        deep = widths[level] if level == config.num_blocks else 2 * widths[level]
        yield from _block(f"{prefix}.{name}.decoder.up_blocks.{block}", deep, widths[level - 1], 3)


def _block(name: str, inputs: int, outputs: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield from _convolution(f"{name}.conv", inputs, outputs, side)
    yield from _normalisation(f"{name}.norm", outputs)


def _convolution(name: str, inputs: int, outputs: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _normalisation(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
