"""What is counted from shapes is what the modules of torch do, part by part and to the last multiplication."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="these are torch's modules")

import torch
from torch import nn

from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, FommConfig, GeneratorConfig, HourglassConfig
from mien_generator.face.fomm.count import PartCount, count
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.keypoint_detector import KeypointDetector
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator

#: Depths and scales that the published widths do not have.
UNLIKE = FommConfig(None, GeneratorConfig(8, 16, 3, 2, HourglassConfig(8, 24, 3, 0.5)))
OWN = replace(HALF_WIDTH, keypoint_detector=None, pixel_centres=True, source_residual=True)


@pytest.mark.parametrize("size", [256, 384])
@pytest.mark.parametrize("config", [HALF_WIDTH, FULL_WIDTH, OWN, UNLIKE], ids=["half", "full", "own", "unlike"])
def test_every_part_is_what_the_modules_do(config: FommConfig, size: int) -> None:
    counted = count(config, size)
    source, motion, painting = counted.generator
    with torch.device("meta"), torch.inference_mode():  # shapes alone: nothing is computed
        generator = OcclusionAwareGenerator(config).eval()
        picture, keypoints = _inputs(config, size)
        macs = _Macs(generator)
        prepared = generator.prepare(picture, keypoints)
        per_avatar = macs.take()
        generator(prepared, keypoints)
        per_frame = macs.take()
    in_motion = {name for name in per_frame if name.startswith("dense_motion_network.")}
    assert per_avatar.total() == counted.macs_per_avatar
    assert per_frame.total() == counted.macs_per_frame
    # A model with a source residual makes a frame for its avatar.
    assert _measured(generator, per_avatar, per_avatar.keys() - per_frame.keys()) == _figures(source)
    assert _measured(generator, per_frame, in_motion) == _figures(motion)
    assert _measured(generator, per_frame, per_frame.keys() - in_motion) == _figures(painting)
    assert counted.parameters == sum(tensor.numel() for tensor in generator.parameters())


@pytest.mark.parametrize("size", [256, 384])
def test_the_detector_is_what_its_modules_do(size: int) -> None:
    with torch.device("meta"), torch.inference_mode():
        detector = KeypointDetector(HALF_WIDTH).eval()
        picture, _ = _inputs(HALF_WIDTH, size)
        macs = _Macs(detector)
        detector(picture)
    counted = count(HALF_WIDTH, size).keypoint_detector
    assert counted is not None
    assert _figures(counted) == (macs.take().total(), sum(tensor.numel() for tensor in detector.parameters()))


class _Macs:
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


def _inputs(config: FommConfig, size: int) -> tuple[torch.Tensor, KeypointTensors]:
    keypoints = KeypointTensors(torch.empty(1, config.num_keypoints, 2), torch.empty(1, config.num_keypoints, 2, 2))
    return torch.empty(1, config.num_channels, size, size), keypoints


def _figures(part: PartCount) -> tuple[int, int]:
    return part.macs, part.parameters


def _measured(network: nn.Module, macs: Counter[str], modules: Iterable[str]) -> tuple[int, int]:
    """Of these convolutions, with the normalisations of their blocks."""
    names = set(modules)
    blocks = {_block(module) for module in names}
    parameters = sum(
        tensor.numel()
        for parameter, tensor in network.named_parameters()
        if _block(parameter.rpartition(".")[0]) in blocks
    )
    return sum(macs[module] for module in names), parameters


def _block(module_name: str) -> str:
    """`down_blocks.0.conv` and `down_blocks.0.norm` are parts of one block; `final` is its own."""
    parent, _, leaf = module_name.rpartition(".")
    return parent if leaf.startswith(("conv", "norm")) else module_name
