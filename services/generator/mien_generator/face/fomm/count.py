"""Multiply-accumulates and parameters, counted on the real modules as they run (on torch's meta device: no weights).

The convention is the paper's: every convolution module with its output's size, and nothing else. Batch
normalisation (folds into the convolutions), activations, pooling, sampling, and the fixed blur before a reduction
are not counted; nor is the keypoint detector, which runs on the sender's device, shown apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.keypoint_detector import KeypointDetector
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator


@dataclass(frozen=True, slots=True)
class PartCount:
    """One part of the model; `per` says how often it runs."""

    name: str
    per: str
    macs: int
    parameters: int


@dataclass(frozen=True, slots=True)
class ModelCount:
    """generator: its parts, in the order they run; keypoint_detector: apart, None where the model has none."""

    size: int
    generator: tuple[PartCount, ...]
    keypoint_detector: PartCount | None

    @property
    def macs(self) -> int:
        """Of the generator, dense motion included, for one picture from nothing."""
        return sum(part.macs for part in self.generator)

    @property
    def macs_per_frame(self) -> int:
        """Of the generator, once the avatar is prepared."""
        return sum(part.macs for part in self.generator if part.per == "frame")

    @property
    def parameters(self) -> int:
        """Of the generator, dense motion included."""
        return sum(part.parameters for part in self.generator)


def count(config: FommConfig, size: int) -> ModelCount:
    """Count for one picture `size` pixels wide; raises ConfigError for a size the networks cannot take."""
    config.check_size(size)
    with torch.device("meta"), torch.inference_mode():
        generator = OcclusionAwareGenerator(config).eval()
        picture = torch.empty(1, config.num_channels, size, size)
        keypoints = KeypointTensors(torch.empty(1, config.num_keypoints, 2), torch.empty(1, config.num_keypoints, 2, 2))
        macs = _MacCounter(generator)
        source = generator.prepare(picture, keypoints)
        per_avatar = macs.take()
        generator(source, keypoints)
        per_frame = macs.take()
        dense_motion = {name for name in per_frame if name.startswith("dense_motion_network.")}
        return ModelCount(
            size=size,
            generator=(
                _part("source features", "avatar", generator, per_avatar, set(per_avatar)),
                _part("dense motion", "frame", generator, per_frame, dense_motion),
                _part("bottleneck and up blocks", "frame", generator, per_frame, set(per_frame) - dense_motion),
            ),
            keypoint_detector=None if config.keypoint_detector is None else _count_detector(config, picture),
        )


def _count_detector(config: FommConfig, picture: torch.Tensor) -> PartCount:
    detector = KeypointDetector(config).eval()
    counter = _MacCounter(detector)
    detector(picture)
    macs = counter.take()
    return _part("keypoint detector", "picture", detector, macs, set(macs))


class _MacCounter:
    """Counts every convolution and linear module of a network, by the module's name, while the network runs."""

    def __init__(self, network: nn.Module) -> None:
        self._macs: Counter[str] = Counter()
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._hook(name))

    def take(self) -> Counter[str]:
        """What ran since the last call."""
        macs, self._macs = self._macs, Counter()
        return macs

    def _hook(self, name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def add(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            # Each output value is a sum over one filter.
            self._macs[name] += output.numel() * module.weight[0].numel()

        return add


def _part(name: str, per: str, network: nn.Module, macs: Counter[str], modules: set[str]) -> PartCount:
    """`modules`: names of the convolutions that belong to the part; their blocks' normalisations come along."""
    blocks = {_block(module) for module in modules}
    parameters = sum(
        tensor.numel()
        for parameter, tensor in network.named_parameters()
        if _block(parameter.rpartition(".")[0]) in blocks
    )
    return PartCount(name, per, sum(macs[module] for module in modules), parameters)


def _block(module_name: str) -> str:
    """`down_blocks.0.conv` and `down_blocks.0.norm` are parts of one block; `final` is its own."""
    parent, _, leaf = module_name.rpartition(".")
    return parent if leaf.startswith(("conv", "norm")) else module_name
