"""The encoder file and its manifest. Reading and checking them does not load ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


class EncoderFileError(RuntimeError):
    """The encoder's file cannot be used; the text says why."""


class EncoderFileMissing(EncoderFileError):
    """A file does not exist or cannot be read."""


class EncoderFileTruncated(EncoderFileError):
    """The file is shorter or longer than its manifest says."""


class EncoderFileTampered(EncoderFileError):
    """The file's SHA-256 differs from the one in its manifest."""


class NotAnEncoder(EncoderFileError):
    """The file is not an ONNX model, or it is a model of something else, or its manifest is not valid."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Length and SHA-256 of an encoder file, stored next to it as FILE.json."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, model: bytes) -> Manifest:
        """The manifest for a model's bytes."""
        return cls(len(model), hashlib.sha256(model).hexdigest())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises EncoderFileMissing, or NotAnEncoder if the file is not a manifest."""
        try:
            values = json.loads(path.read_bytes())
            return cls(int(values["bytes"]), str(values["sha256"]))
        except OSError as error:
            raise EncoderFileMissing(f"the encoder's manifest {path.name} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NotAnEncoder(f"{path.name} is not the manifest of an encoder") from error

    def write(self, path: Path) -> None:
        """Write it as FILE.json."""
        path.write_text(json.dumps({"bytes": self.size_bytes, "sha256": self.sha256}, indent=1) + "\n")

    def check(self, name: str, model: bytes) -> None:
        """Compare a model's bytes with the manifest; raises EncoderFileTruncated or EncoderFileTampered."""
        if len(model) != self.size_bytes:
            raise EncoderFileTruncated(f"{name} has {len(model)} bytes, its manifest says {self.size_bytes}")
        digest = hashlib.sha256(model).hexdigest()
        if digest != self.sha256:
            raise EncoderFileTampered(f"{name} has SHA-256 {digest}, its manifest says {self.sha256}")


def manifest_path(model: Path) -> Path:
    """Path of a model's manifest: encoder.json for encoder.onnx."""
    return model.with_suffix(".json")


def bundled_path() -> Path:
    """Path of the encoder file that comes with Mien."""
    return Path(str(files(__package__))) / "weights" / "encoder.onnx"


def read_encoder(path: Path) -> tuple[bytes, Manifest]:
    """Read an encoder file and check it against its manifest. Raises an EncoderFileError that says what is wrong."""
    manifest = Manifest.read(manifest_path(path))
    try:
        model = path.read_bytes()
    except OSError as error:
        raise EncoderFileMissing(f"the encoder {path.name} cannot be read: {error.strerror}") from error
    manifest.check(path.name, model)
    return model, manifest
