"""Weights of a First Order Motion Model as torch tensors, and the reader of published checkpoints.

A published `.pth.tar` is a pickle. So only `mien model import` reads it, once, with torch's weights-only reader. The
services read the safetensors file (weights.py).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from mien_generator.face.fomm.config import (
    FommConfig,
    GeneratorConfig,
    HourglassConfig,
    KeypointDetectorConfig,
)
from mien_generator.face.fomm.keypoint_detector import KeypointDetector
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_generator.face.fomm.untrained import randomise
from mien_generator.face.fomm.weights import Array, MismatchedWeights, StoredWeights, WeightsError

Tensors = Mapping[str, torch.Tensor]

_NETWORKS = ("generator", "kp_detector")
#: Batch normalisation's counter of training steps; inference never reads it.
_TRAINING_COUNTER = "num_batches_tracked"
#: Errors of torch's weights-only reader for a file that is not a checkpoint.
_UNREADABLE = (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError)


class NotACheckpoint(WeightsError):
    """The file is not a checkpoint of the published format, or reading it would need unsafe unpickling."""


@dataclass(frozen=True, slots=True, eq=False)
class FommWeights:
    """A configuration and its matching tensors.

    tensors: published names with the prefix `generator.` or `kp_detector.`; checked against config, all finite.
    """

    config: FommConfig
    tensors: Tensors

    def __post_init__(self) -> None:
        self.stored()

    @classmethod
    def of_generator(cls, config: FommConfig, state: Tensors) -> FommWeights:
        """Weights without a keypoint detector, from the state of a trained OcclusionAwareGenerator."""
        return cls(
            replace(config, keypoint_detector=None),
            {f"generator.{name}": tensor for name, tensor in state.items() if not name.endswith(_TRAINING_COUNTER)},
        )

    @property
    def sha256(self) -> str:
        """Digest of configuration, names, types, shapes and values, in hexadecimal."""
        return self.stored().sha256

    def stored(self) -> StoredWeights:
        """The same weights as numpy arrays; raises MismatchedWeights for a type that numpy does not have."""
        return StoredWeights(self.config, {name: _array(name, tensor) for name, tensor in self.tensors.items()})

    def half(self) -> FommWeights:
        """The same in float16, like the bundled weights; raises MismatchedWeights for a value that does not fit."""
        return FommWeights(self.config, {name: tensor.half() for name, tensor in self.tensors.items()})

    def generator(self) -> OcclusionAwareGenerator:
        """The generator with these weights, float32, in eval mode, on the CPU."""
        network = OcclusionAwareGenerator(self.config)
        self._load("generator", network)
        return network

    def keypoint_detector(self) -> KeypointDetector:
        """The keypoint detector with these weights, float32, in eval mode, on the CPU.

        Raises MismatchedWeights if the weights have no keypoint detector.
        """
        if self.config.keypoint_detector is None:
            raise MismatchedWeights("the weights have no keypoint detector")
        network = KeypointDetector(self.config)
        self._load("kp_detector", network)
        return network

    def _load(self, prefix: str, network: nn.Module) -> None:
        state = {
            name.removeprefix(f"{prefix}."): tensor.float()
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }
        # Not strict, because the training counters are missing; the constructor checked all other names and shapes.
        network.load_state_dict(state, strict=False)
        network.eval().requires_grad_(False)


def read_checkpoint(path: Path, config: FommConfig | None = None) -> FommWeights:
    """Read a published `.pth.tar`. Without a configuration, widths and depths are derived from the tensors.

    Raises NotACheckpoint, MismatchedWeights, or OSError.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise NotACheckpoint(f"{path.name} is not a checkpoint that can be read without running code") from error
    tensors: dict[str, torch.Tensor] = {}
    for network in _NETWORKS:
        state = checkpoint.get(network) if isinstance(checkpoint, Mapping) else None
        if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise NotACheckpoint(f"{path.name} has no '{network}' network")
        for name, tensor in state.items():
            # Names in checkpoints saved from nn.DataParallel start with the name of its wrapper.
            bare_name = str(name).removeprefix("module.")
            if not bare_name.endswith(_TRAINING_COUNTER):
                tensors[f"{network}.{bare_name}"] = tensor.contiguous()
    return FommWeights(config or infer_config(tensors), tensors)


def random_weights(config: FommConfig, seed: int = 0) -> FommWeights:
    """Random weights of the right shapes, for tests and speed measurements. The same seed gives the same weights.

    The keypoint Jacobians are near the unit matrix.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks: dict[str, nn.Module] = {"generator": OcclusionAwareGenerator(config)}
        if config.keypoint_detector is not None:
            networks["kp_detector"] = KeypointDetector(config)
        for network in networks.values():
            randomise(network)
        if "kp_detector" in networks:
            with torch.no_grad():
                networks["kp_detector"].jacobian.bias.copy_(torch.eye(2).flatten().repeat(config.num_keypoints))
    return FommWeights(
        config,
        {
            f"{prefix}.{name}": tensor
            for prefix, network in networks.items()
            for name, tensor in network.state_dict().items()
            if not name.endswith(_TRAINING_COUNTER)
        },
    )


def infer_config(tensors: Tensors) -> FommConfig:
    """The configuration that matches tensors with the published names.

    The tensors do not show the heatmap temperature: the published 0.1 is assumed. They also do not show a max_features
    that no level reaches: the width of the widest level is used instead, which describes the same network.
    Raises MismatchedWeights if a required tensor is missing.
    """
    generator, detector = "generator", "kp_detector"
    dense_motion = f"{generator}.dense_motion_network"
    heatmap = _shape(tensors, f"{detector}.kp.weight")
    first = _shape(tensors, f"{generator}.first.conv.weight")
    down_blocks = _depth(tensors, f"{generator}.down_blocks.{{}}.conv.weight")
    widest = _shape(tensors, f"{generator}.down_blocks.{down_blocks - 1}.conv.weight")[0] if down_blocks else first[0]
    return FommConfig(
        keypoint_detector=KeypointDetectorConfig(
            *_infer_hourglass(tensors, f"{detector}.predictor"), _infer_scale(tensors, f"{detector}.down.weight")
        ),
        generator=GeneratorConfig(
            block_expansion=first[0],
            max_features=widest,
            num_down_blocks=down_blocks,
            num_bottleneck_blocks=_depth(tensors, f"{generator}.bottleneck.r{{}}.conv1.weight"),
            dense_motion=HourglassConfig(
                *_infer_hourglass(tensors, f"{dense_motion}.hourglass"),
                _infer_scale(tensors, f"{dense_motion}.down.weight"),
            ),
        ),
        num_keypoints=heatmap[0],
        num_channels=first[1],
    )


def write_weights(weights: FommWeights, path: Path) -> None:
    """Write a safetensors file. An existing file is replaced only when the new one is complete."""
    weights.stored().write(path)


def read_weights(path: Path, sha256: str | None = None) -> FommWeights:
    """Read a file written by write_weights; see StoredWeights.read."""
    stored = StoredWeights.read(path, sha256)
    return FommWeights(stored.config, {name: torch.from_numpy(array.copy()) for name, array in stored.arrays.items()})


def _array(name: str, tensor: torch.Tensor) -> Array:
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError as error:  # bfloat16
        raise MismatchedWeights(f"tensor {name} has type {tensor.dtype}, not float16 or float32") from error
    return array


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise MismatchedWeights(f"tensor {name} is missing")
    return tuple(tensors[name].shape)


def _depth(tensors: Tensors, pattern: str) -> int:
    depth = 0
    while pattern.format(depth) in tensors:
        depth += 1
    return depth


def _infer_hourglass(tensors: Tensors, prefix: str) -> tuple[int, int, int]:
    """The hourglass's block_expansion, max_features and num_blocks."""
    blocks = _depth(tensors, f"{prefix}.encoder.down_blocks.{{}}.conv.weight")
    deepest = _shape(tensors, f"{prefix}.encoder.down_blocks.{max(blocks - 1, 0)}.conv.weight")
    last_up = _shape(tensors, f"{prefix}.decoder.up_blocks.{max(blocks - 1, 0)}.conv.weight")
    return last_up[0], deepest[0], blocks


def _infer_scale(tensors: Tensors, name: str) -> float:
    """1/n, from the width of the blur before a reduction by n: 4(n - 1) + 1 pixels. Without a blur, 1."""
    return 4 / (tensors[name].shape[-1] + 3) if name in tensors else 1.0
