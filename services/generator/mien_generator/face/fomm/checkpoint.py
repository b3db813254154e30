"""Weights of a First Order Motion Model: the published checkpoint in, a safetensors file out and back.

A published `.pth.tar` is a pickle, so it is read once, by `mien model import`, and only with torch's weights-only
reader. Everything that runs reads the safetensors file: a JSON header and raw tensors, nothing to execute.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from mien_generator.face.fomm.config import (
    ConfigError,
    FommConfig,
    GeneratorConfig,
    HourglassConfig,
    KeypointDetectorConfig,
)
from mien_generator.face.fomm.keypoint_detector import KeypointDetector
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator

FORMAT = "mien-fomm"
FORMAT_VERSION = 1

Tensors = Mapping[str, torch.Tensor]

_NETWORKS = ("generator", "kp_detector")
#: A counter of training steps that batch normalisation keeps; inference never reads it.
_TRAINING_COUNTER = "num_batches_tracked"
#: The longest header that is still one of ours; a text file read as one claims exabytes.
_MAX_HEADER_BYTES = 16 * 2**20
#: What torch's weights-only reader raises for bytes that are no checkpoint.
_UNREADABLE = (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError)


class WeightsError(ValueError):
    """Weights that cannot be used; the text names the file and what is wrong with it."""


class NotACheckpoint(WeightsError):
    """Not a checkpoint of the published format, or one that only unsafe unpickling would read."""


class NotAWeightsFile(WeightsError):
    """Not a safetensors file that `mien model import` wrote."""


class UnknownWeightsVersion(WeightsError):
    """Written by another version of `mien model import`."""


class TruncatedWeights(WeightsError):
    """The file ends before its tensors do."""


class TamperedWeights(WeightsError):
    """The file's contents are not those it was written with."""


class MismatchedWeights(WeightsError):
    """The tensors are not those of the network that the configuration describes."""


@dataclass(frozen=True, slots=True, eq=False)
class FommWeights:
    """A configuration and the tensors that fit it.

    tensors: by the published names, behind `generator.` or `kp_detector.`; checked against config, all finite.
    """

    config: FommConfig
    tensors: Tensors

    def __post_init__(self) -> None:
        _check_fit(self.config, self.tensors)

    @property
    def sha256(self) -> str:
        """Digest of configuration, names, types, shapes and values, in hexadecimal."""
        digest = hashlib.sha256(self.config.to_json().encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].contiguous()
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def generator(self) -> OcclusionAwareGenerator:
        """The generator with these weights, float32, in eval mode, on the CPU."""
        network = OcclusionAwareGenerator(self.config)
        self._load("generator", network)
        return network

    def keypoint_detector(self) -> KeypointDetector:
        """The keypoint detector with these weights, float32, in eval mode, on the CPU."""
        network = KeypointDetector(self.config)
        self._load("kp_detector", network)
        return network

    def _load(self, prefix: str, network: nn.Module) -> None:
        state = {
            name.removeprefix(f"{prefix}."): tensor.float()
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }
        # Not strict only because of the training counters; every other name and shape was checked on construction.
        network.load_state_dict(state, strict=False)
        network.eval().requires_grad_(False)


def read_checkpoint(path: Path, config: FommConfig | None = None) -> FommWeights:
    """Read a published `.pth.tar`; without a configuration its widths and depths are taken from the tensors.

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
            raise NotACheckpoint(f"{path.name} holds no '{network}' network")
        for name, tensor in state.items():
            # Checkpoints saved from nn.DataParallel carry its wrapper's name.
            bare_name = str(name).removeprefix("module.")
            if not bare_name.endswith(_TRAINING_COUNTER):
                tensors[f"{network}.{bare_name}"] = tensor.contiguous()
    return FommWeights(config or infer_config(tensors), tensors)


def random_weights(config: FommConfig, seed: int = 0) -> FommWeights:
    """Untrained weights of the right shapes, the same for the same seed: for tests and for measuring speed.

    Every normalisation has statistics of its own, so none of them is the identity; keypoint Jacobians are near unit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, detector = OcclusionAwareGenerator(config), KeypointDetector(config)
        for module in (*generator.modules(), *detector.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # torch's default fades to a flat grey over this many layers
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        with torch.no_grad():
            detector.jacobian.bias.copy_(torch.eye(2).flatten().repeat(config.num_keypoints))
    networks: dict[str, nn.Module] = {"generator": generator, "kp_detector": detector}
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
    """The configuration that tensors of the published names were made with.

    The heatmap temperature leaves no trace in them: it is taken to be the published 0.1. A max_features that no
    level reaches leaves none either: the widest level stands for it, which describes the same network.
    Raises MismatchedWeights where a tensor it needs is missing.
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
    """Write a safetensors file, in place of an older one only once it is whole."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": weights.config.to_json(),
        "sha256": weights.sha256,
    }
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(safetensors.torch.save(dict(weights.tensors), metadata))
    os.replace(partial, path)


def read_weights(path: Path) -> FommWeights:
    """Read what write_weights wrote.

    Raises NotAWeightsFile, UnknownWeightsVersion, TruncatedWeights, TamperedWeights, MismatchedWeights, or OSError.
    """
    data = path.read_bytes()
    metadata = _read_metadata(data, path.name)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise NotAWeightsFile(f"{path.name} is not a safetensors file: {error}") from error
    try:
        weights = FommWeights(FommConfig.from_json(metadata["config"]), tensors)
    except ConfigError as error:
        raise MismatchedWeights(f"{path.name}: {error}") from error
    except MismatchedWeights as error:
        raise MismatchedWeights(f"{path.name}: {error}") from error
    if weights.sha256 != metadata["sha256"]:
        raise TamperedWeights(f"{path.name}: its contents do not match the sha256 that was written with them")
    return weights


def _read_metadata(data: bytes, name: str) -> dict[str, str]:
    """Check a safetensors file's frame and give its metadata: a cut file is told apart from a wrong one."""
    if len(data) < 8:
        raise TruncatedWeights(f"{name} ends after {len(data)} bytes, inside its header")
    (header_bytes,) = struct.unpack_from("<Q", data)
    if header_bytes > _MAX_HEADER_BYTES:
        raise NotAWeightsFile(f"{name} is not a safetensors file")
    tensors_at = 8 + header_bytes
    if len(data) < tensors_at:
        raise TruncatedWeights(f"{name} ends after {len(data)} bytes, inside its header")
    try:
        header = json.loads(data[8:tensors_at])
        metadata = header.pop("__metadata__", {})
        whole_bytes = tensors_at + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, TypeError, LookupError) as error:
        raise NotAWeightsFile(f"{name} is not a safetensors file") from error
    if metadata.get("format") != FORMAT:
        raise NotAWeightsFile(f"{name} was not written by 'mien model import'")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise UnknownWeightsVersion(
            f"{name} has weights format version {metadata.get('format_version')}, only {FORMAT_VERSION} is known"
        )
    if not {"config", "sha256"} <= metadata.keys():
        raise TamperedWeights(f"{name}: its metadata lacks the configuration or the sha256")
    if len(data) < whole_bytes:
        raise TruncatedWeights(f"{name} ends after {len(data)} of {whole_bytes} bytes")
    return metadata


def _check_fit(config: FommConfig, tensors: Tensors) -> None:
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            "generator": OcclusionAwareGenerator(config),
            "kp_detector": KeypointDetector(config),
        }
    wanted = {
        f"{prefix}.{name}": tuple(tensor.shape)
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
        if not name.endswith(_TRAINING_COUNTER)
    }
    for name, shape in wanted.items():
        if name not in tensors:
            raise MismatchedWeights(f"tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise MismatchedWeights(
                f"tensor {name} has shape {tuple(tensors[name].shape)}, the configuration wants {shape}"
            )
    for name, tensor in tensors.items():
        if name not in wanted:
            raise MismatchedWeights(f"tensor {name} has no place in the configured network")
        if not tensor.is_floating_point():
            raise MismatchedWeights(f"tensor {name} holds {tensor.dtype}, not floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise MismatchedWeights(f"tensor {name} holds a value that is not finite")


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
    """block_expansion, max_features, num_blocks."""
    blocks = _depth(tensors, f"{prefix}.encoder.down_blocks.{{}}.conv.weight")
    deepest = _shape(tensors, f"{prefix}.encoder.down_blocks.{max(blocks - 1, 0)}.conv.weight")
    last_up = _shape(tensors, f"{prefix}.decoder.up_blocks.{max(blocks - 1, 0)}.conv.weight")
    return last_up[0], deepest[0], blocks


def _infer_scale(tensors: Tensors, name: str) -> float:
    """The blur that comes before a reduction by n is 4(n - 1) + 1 pixels wide; no blur, no reduction."""
    return 4 / (tensors[name].shape[-1] + 3) if name in tensors else 1.0
