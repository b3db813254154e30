"""The encoder's file, and what is said of it beside it. Reading and checking it loads no runtime."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


class EncoderFileError(RuntimeError):
    """The encoder's file cannot be used; the text says why."""


class EncoderFileMissing(EncoderFileError):
    """A file is not there, or cannot be read."""


class EncoderFileTruncated(EncoderFileError):
    """The file is shorter, or longer, than the manifest beside it says."""


class EncoderFileTampered(EncoderFileError):
    """The file's SHA-256 is not the manifest's."""


class NotAnEncoder(EncoderFileError):
    """The file is no ONNX model, or a model of something else."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is said of an encoder's file beside it, in FILE.json: its length and SHA-256."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, model: bytes) -> Manifest:
        """The manifest that fits a model's bytes."""
        return cls(len(model), hashlib.sha256(model).hexdigest())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises EncoderFileMissing, or NotAnEncoder where it is no manifest."""
        try:
            values = json.loads(path.read_bytes())
            return cls(int(values["bytes"]), str(values["sha256"]))
        except OSError as error:
            raise EncoderFileMissing(f"the encoder's manifest {path.name} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NotAnEncoder(f"{path.name} is no manifest of an encoder") from error

    def write(self, path: Path) -> None:
        """Write it as FILE.json."""
        path.write_text(json.dumps({"bytes": self.size_bytes, "sha256": self.sha256}, indent=1) + "\n")

    def check(self, name: str, model: bytes) -> None:
        """Raises EncoderFileTruncated or EncoderFileTampered."""
        if len(model) != self.size_bytes:
            raise EncoderFileTruncated(f"{name} has {len(model)} bytes, its manifest says {self.size_bytes}")
        digest = hashlib.sha256(model).hexdigest()
        if digest != self.sha256:
            raise EncoderFileTampered(f"{name} has SHA-256 {digest}, its manifest says {self.sha256}")


def manifest_path(model: Path) -> Path:
    """Where a model's manifest lies: encoder.onnx has encoder.json."""
    return model.with_suffix(".json")


def bundled_path() -> Path:
    """The encoder that comes with Mien."""
    return Path(str(files(__package__))) / "weights" / "encoder.onnx"


def read_encoder(path: Path) -> tuple[bytes, Manifest]:
    """An encoder's file, checked against its manifest. Raises an EncoderFileError that says what is wrong."""
    manifest = Manifest.read(manifest_path(path))
    try:
        model = path.read_bytes()
    except OSError as error:
        raise EncoderFileMissing(f"the encoder {path.name} cannot be read: {error.strerror}") from error
    manifest.check(path.name, model)
    return model, manifest
