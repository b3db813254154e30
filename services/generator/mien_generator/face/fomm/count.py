"""Multiply-accumulates and parameters of a model, computed from its configuration and its tensor shapes.

The convention is the paper's: count every convolution at its output size, and nothing else. Batch normalisation (it
folds into the convolutions), activations, pooling, sampling and the fixed blur before a reduction are not counted. The
keypoint detector runs on the sender's device and is listed separately. A test compares each figure with the modules
that run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mien_generator.face.fomm.config import FommConfig, HourglassConfig
from mien_generator.face.fomm.shapes import tensor_shapes

#: Pixels that a side loses in the unpadded 7x7 convolution at the end of the keypoint detector.
_UNPADDED = 6


@dataclass(frozen=True, slots=True)
class PartCount:
    """One part of the model. per: it runs once for each avatar, frame or picture."""

    name: str
    per: str
    macs: int
    parameters: int


@dataclass(frozen=True, slots=True)
class ModelCount:
    """generator: its parts in the order of execution. at_rest, keypoint_detector: None if the model has none.

    at_rest: one extra frame for each avatar in a model with a source residual; it runs parts that are already listed.
    """

    size: int
    generator: tuple[PartCount, ...]
    at_rest: PartCount | None
    keypoint_detector: PartCount | None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the generator with dense motion, each part once: the paper's figure."""
        return sum(part.macs for part in self.generator)

    @property
    def macs_per_avatar(self) -> int:
        """Multiply-accumulates of the generator to prepare an avatar."""
        at_rest = 0 if self.at_rest is None else self.at_rest.macs
        return sum(part.macs for part in self.generator if part.per == "avatar") + at_rest

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulates of the generator for one frame of a prepared avatar."""
        return sum(part.macs for part in self.generator if part.per == "frame")

    @property
    def parameters(self) -> int:
        """Parameters of the generator with dense motion."""
        return sum(part.parameters for part in self.generator)


def count(config: FommConfig, size: int) -> ModelCount:
    """Count for one picture `size` pixels wide; raises ConfigError for a size that the networks cannot process."""
    config.check_size(size)
    blocks = _Blocks(config)
    depth, bottlenecks = config.generator.num_down_blocks, config.generator.num_bottleneck_blocks
    reduced = size >> depth
    source = {"first": size} | {f"down_blocks.{level}": size >> level for level in range(depth)}
    painting = {f"bottleneck.r{index}": reduced for index in range(bottlenecks)}
    painting |= {f"up_blocks.{block}": reduced << (block + 1) for block in range(depth)} | {"final": size}
    hourglass = config.generator.dense_motion
    small = round(size * hourglass.scale_factor)
    motion = _hourglass("hourglass", hourglass, small) | {"mask": small, "occlusion": small}
    generator = (
        blocks.part("source features", "avatar", "generator", source),
        blocks.part("dense motion", "frame", "generator.dense_motion_network", motion),
        blocks.part("bottleneck and up blocks", "frame", "generator", painting),
    )
    per_frame = sum(part.macs for part in generator if part.per == "frame")
    return ModelCount(
        size,
        generator,
        PartCount("picture at rest", "avatar", per_frame, 0) if config.source_residual else None,
        None if config.keypoint_detector is None else _detector(blocks, config.keypoint_detector, size),
    )


def _detector(blocks: _Blocks, detector: HourglassConfig, size: int) -> PartCount:
    small = round(size * detector.scale_factor)
    heads = dict.fromkeys(("kp", "jacobian"), small - _UNPADDED)
    return blocks.part("keypoint detector", "picture", "kp_detector", _hourglass("predictor", detector, small) | heads)


def _hourglass(name: str, config: HourglassConfig, side: int) -> dict[str, int]:
    """Output side of each block's convolution: before the reduction (encoder) or after the doubling (decoder)."""
    levels = config.num_blocks
    down = {f"{name}.encoder.down_blocks.{level}": side >> level for level in range(levels)}
    return down | {f"{name}.decoder.up_blocks.{block}": side >> (levels - 1 - block) for block in range(levels)}


class _Blocks:
    """A model's tensor shapes, grouped by block: its convolutions and their normalisations."""

    def __init__(self, config: FommConfig) -> None:
        self._shapes = tensor_shapes(config)

    def part(self, name: str, per: str, prefix: str, sides: Mapping[str, int]) -> PartCount:
        """sides: block name after `prefix` -> side of the maps that the block's convolutions produce."""
        macs, parameters = 0, 0
        for block, side in sides.items():
            for tensor, shape in self._shapes.items():
                if not tensor.startswith(f"{prefix}.{block}."):
                    continue
                if len(shape) == 4:  # a kernel: each output cell of each filter is a sum over the filter's weights
                    macs += math.prod(shape) * side**2
                if not tensor.endswith((".running_mean", ".running_var")):  # measured, not trained
                    parameters += math.prod(shape)
        return PartCount(name, per, macs, parameters)
