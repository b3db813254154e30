"""A model's weights as they are kept: a safetensors file, read with numpy alone.

The file is a JSON header and raw tensors, nothing to execute. Its metadata hold the configuration, and a SHA-256 of
configuration and tensors that is checked whenever the file is read. Names are those of the published checkpoints;
values are float32, or float16 in the files that Mien ships.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mien_generator.face.fomm.config import ConfigError, FommConfig, HourglassConfig

FORMAT = "mien-fomm"
#: 2: the keypoint detector may be absent, and the digest names types as numpy does.
FORMAT_VERSION = 2

Array = NDArray[np.float16] | NDArray[np.float32]
Arrays = Mapping[str, Array]
Shape = tuple[int, ...]

#: The longest header that is still one of ours; a text file read as one claims exabytes.
_MAX_HEADER_BYTES = 16 * 2**20


class WeightsError(ValueError):
    """Weights that cannot be used; the text names the file and what is wrong with it."""


class NotAWeightsFile(WeightsError):
    """Not a safetensors file that `mien model import` wrote."""


class UnknownWeightsVersion(WeightsError):
    """Written by another version of `mien model import`."""


class TruncatedWeights(WeightsError):
    """The file ends before its tensors do."""


class TamperedWeights(WeightsError):
    """The file's contents are not those it was written with, or not those that were expected."""


class MismatchedWeights(WeightsError):
    """The tensors are not those of the network that the configuration describes."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeights:
    """A configuration and the arrays that fit it.

    arrays: by the published names, behind `generator.` or `kp_detector.`; checked against config, all finite.
    Raises MismatchedWeights.
    """

    config: FommConfig
    arrays: Arrays

    def __post_init__(self) -> None:
        _check_fit(self.config, self.arrays)

    @property
    def sha256(self) -> str:
        """Digest of configuration, names, types, shapes and values, in hexadecimal."""
        digest = hashlib.sha256(self.config.to_json().encode())
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def values(self) -> int:
        """How many numbers these are."""
        return sum(array.size for array in self.arrays.values())

    def half(self) -> StoredWeights:
        """The same in float16; raises MismatchedWeights for a value that float16 cannot hold."""
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the check of the values names
            return StoredWeights(self.config, {name: array.astype(np.float16) for name, array in self.arrays.items()})

    def write(self, path: Path) -> None:
        """Write a safetensors file, in place of an older one only once it is whole."""
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "config": self.config.to_json(),
            "sha256": self.sha256,
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(safetensors.numpy.save(contiguous, metadata))
        os.replace(partial, path)

    @classmethod
    def read(cls, path: Path, sha256: str | None = None) -> StoredWeights:
        """Read what `write` wrote. The arrays are read-only.

        sha256: the digest that is expected, where the file is a known one.
        Raises NotAWeightsFile, UnknownWeightsVersion, TruncatedWeights, TamperedWeights, MismatchedWeights, or OSError.
        """
        data = path.read_bytes()
        metadata = _read_metadata(data, path.name)
        try:
            arrays = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise NotAWeightsFile(f"{path.name} is not a safetensors file: {error}") from error
        try:
            weights = cls(FommConfig.from_json(metadata["config"]), arrays)
        except (ConfigError, MismatchedWeights) as error:
            raise MismatchedWeights(f"{path.name}: {error}") from error
        found = weights.sha256
        if found != metadata["sha256"]:
            raise TamperedWeights(f"{path.name}: its contents do not match the sha256 that was written with them")
        if sha256 is not None and found != sha256:
            raise TamperedWeights(f"{path.name} has sha256 {found}, expected is {sha256}")
        return weights


def tensor_shapes(config: FommConfig) -> dict[str, Shape]:
    """Every tensor that a configuration's weights consist of, by its published name."""
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


def blank_arrays(config: FommConfig) -> dict[str, Array]:
    """Zeros for every tensor: enough to build what depends on shapes alone."""
    return {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}


def generator_widths(config: FommConfig) -> list[int]:
    """Channels at full size, and after each down block."""
    generator = config.generator
    levels = range(generator.num_down_blocks + 1)
    return [min(generator.max_features, generator.block_expansion * 2**level) for level in levels]


def hourglass_widths(config: HourglassConfig) -> list[int]:
    """Channels at each level on the way up, the topmost first; on the way down level 0 is the input itself."""
    return [min(config.max_features, config.block_expansion * 2**level) for level in range(config.num_blocks + 1)]


def blur_radius(scale_factor: float) -> int:
    """Half of what the anti-aliasing kernel spans, pixels: 4 standard deviations of (1 / scale_factor - 1) / 2 each."""
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
        # Below the deepest level what came up lies beside the skip connection of the same width.
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


def _check_fit(config: FommConfig, arrays: Arrays) -> None:
    wanted = tensor_shapes(config)
    for name, shape in wanted.items():
        if name not in arrays:
            raise MismatchedWeights(f"tensor {name} is missing")
        if arrays[name].shape != shape:
            raise MismatchedWeights(f"tensor {name} has shape {arrays[name].shape}, the configuration wants {shape}")
    for name, array in arrays.items():
        if name not in wanted:
            raise MismatchedWeights(f"tensor {name} has no place in the configured network")
        if array.dtype not in (np.float16, np.float32):
            raise MismatchedWeights(f"tensor {name} holds {array.dtype}, not float16 or float32 numbers")
        if not np.isfinite(array).all():
            raise MismatchedWeights(f"tensor {name} holds a value that is not finite")


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
