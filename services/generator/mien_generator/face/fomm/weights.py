"""A model's weights in a safetensors file. Reading it needs only numpy and safetensors.

The file is a JSON header and raw tensors, so it contains no code. Its metadata have the configuration, and a SHA-256 of
configuration and tensors that every read checks. Tensors have the names of the published checkpoints; values are
float32, or float16 in the bundled files.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mien_generator.face.fomm.config import ConfigError, FommConfig
from mien_generator.face.fomm.shapes import tensor_shapes

FORMAT = "mien-fomm"
#: Version 2: the keypoint detector may be absent, and the digest uses numpy's names of types.
FORMAT_VERSION = 2

Array = NDArray[np.float16] | NDArray[np.float32]
Arrays = Mapping[str, Array]

#: A longer header is not one of ours. In a text file, the bytes read as the length give exabytes.
_MAX_HEADER_BYTES = 16 * 2**20


class WeightsError(ValueError):
    """Weights cannot be used; the text names the file and what is wrong with it."""


class NotAWeightsFile(WeightsError):
    """The file is not a safetensors file written by `mien model import`."""


class UnknownWeightsVersion(WeightsError):
    """The file was written by an incompatible version of `mien model import`."""


class TruncatedWeights(WeightsError):
    """The file ends before the end of its tensors."""


class TamperedWeights(WeightsError):
    """The file's contents have changed since it was written, or differ from the expected digest."""


class MismatchedWeights(WeightsError):
    """The tensors do not fit the network that the configuration describes."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeights:
    """A configuration and its matching arrays.

    arrays: published names with the prefix `generator.` or `kp_detector.`; checked against config, all finite.
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
        """Total number of values."""
        return sum(array.size for array in self.arrays.values())

    def half(self) -> StoredWeights:
        """The same in float16; raises MismatchedWeights for a value that float16 cannot hold."""
        with np.errstate(over="ignore"):  # an overflow gives infinity, which the constructor rejects with the name
            return StoredWeights(self.config, {name: array.astype(np.float16) for name, array in self.arrays.items()})

    def write(self, path: Path) -> None:
        """Write a safetensors file. An existing file is replaced only when the new one is complete."""
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
        """Read a file written by `write`. The arrays are read-only.

        sha256: the expected digest, if it is known.
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
            raise TamperedWeights(f"{path.name}: the contents do not match the sha256 in its metadata")
        if sha256 is not None and found != sha256:
            raise TamperedWeights(f"{path.name} has sha256 {found}, expected {sha256}")
        return weights


def _check_fit(config: FommConfig, arrays: Arrays) -> None:
    wanted = tensor_shapes(config)
    for name, shape in wanted.items():
        if name not in arrays:
            raise MismatchedWeights(f"tensor {name} is missing")
        if arrays[name].shape != shape:
            raise MismatchedWeights(f"tensor {name} has shape {arrays[name].shape}, the configuration needs {shape}")
    for name, array in arrays.items():
        if name not in wanted:
            raise MismatchedWeights(f"tensor {name} does not belong to the configured network")
        if array.dtype not in (np.float16, np.float32):
            raise MismatchedWeights(f"tensor {name} has type {array.dtype}, not float16 or float32")
        if not np.isfinite(array).all():
            raise MismatchedWeights(f"tensor {name} has a value that is not finite")


def _read_metadata(data: bytes, name: str) -> dict[str, str]:
    """Check the framing of a safetensors file and return its metadata. Tells truncated files from other files."""
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
            f"{name} has weights format version {metadata.get('format_version')}, but only version {FORMAT_VERSION} "
            "can be read: run this version's `mien model import`"
        )
    if not {"config", "sha256"} <= metadata.keys():
        raise TamperedWeights(f"{name}: the configuration or the sha256 is missing in its metadata")
    if len(data) < whole_bytes:
        raise TruncatedWeights(f"{name} ends after {len(data)} of {whole_bytes} bytes")
    return metadata
