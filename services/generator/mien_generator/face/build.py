"""Builds the tiers for each kind of avatar on this machine, from the settings.

The tiers for portraits are the network at 384 and at 256 pixels, if it can run, and then `warp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mien_generator.face.contract import MAX_FACE_SIZE, FaceGenerator
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpGenerator
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarKind

#: The weights that are bundled with the package.
SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "fomm-half.safetensors"
_SMALL_FACE_SIZE = 256


class BackendUnavailable(RuntimeError):
    """The configured backend cannot run on this machine."""


#: The tiers for each kind of avatar.
Ladders = Mapping[AvatarKind, Ladder]


@dataclass(frozen=True, slots=True)
class Fallback:
    """The reason why `auto` does not run the network. reason: label of the metric. text: for the log."""

    reason: Literal["weights", "runtime"]
    text: str


def make_ladders(settings: GeneratorSettings, threads: int) -> tuple[Ladders, Fallback | None]:
    """The tiers for every kind of avatar that this generator supports. Raises the errors of portrait_ladder."""
    ladder, fallback = portrait_ladder(settings, threads)
    return {AvatarKind.PORTRAIT: ladder}, fallback


def portrait_ladder(settings: GeneratorSettings, threads: int) -> tuple[Ladder, Fallback | None]:
    """The tiers for portraits. Raises BackendUnavailable, or the error of the weights file.

    threads: number of threads that a network on the CPU may use. `auto` falls back to warp only if the weights or ONNX
    Runtime are missing. Damaged weights are an error, not a reason to fall back.
    """
    fallback = _why_no_network(settings) if settings.face_backend == "auto" else None
    if settings.face_backend == "warp" or fallback is not None:
        return Ladder((_warp(),)), fallback
    weights = settings.weights or SHIPPED_WEIGHTS
    if not weights.is_file():
        raise BackendUnavailable(
            f"the {settings.face_backend} backend needs weights, but there is no file {weights.name}: "
            "make one with `mien model import` and set MIEN_WEIGHTS to it"
        )
    sizes = (MAX_FACE_SIZE, _SMALL_FACE_SIZE) if settings.face_size == MAX_FACE_SIZE else (_SMALL_FACE_SIZE,)
    make = _torch if settings.face_backend == "torch" else _onnx
    networks = make(settings, weights, sizes, threads)
    rungs = [Rung(f"{one.name}-{size}", one, on_device=True) for one, size in zip(networks, sizes, strict=True)]
    facts = weights.stat()
    return (
        Ladder(
            (*rungs, _warp()),
            device=f"{settings.device} {settings.precision}",
            model=f"{weights.name} {facts.st_size} {facts.st_mtime_ns}",
            shares_cores=settings.device == "cpu",
        ),
        None,
    )


def _why_no_network(settings: GeneratorSettings) -> Fallback | None:
    if settings.weights is None and not SHIPPED_WEIGHTS.is_file():
        return Fallback("weights", "this package has no bundled weights and MIEN_WEIGHTS is not set")
    if find_spec("onnxruntime") is None:
        return Fallback("runtime", "onnxruntime is not installed")
    return None


def _warp() -> Rung:
    return Rung("warp", WarpGenerator(), on_device=False)


def _torch(
    settings: GeneratorSettings, weights: Path, sizes: Sequence[int], threads: int
) -> Sequence[FaceGenerator[Any]]:
    if settings.precision == "int8":
        raise BackendUnavailable("the torch backend supports float32, float16 and bfloat16, not int8")
    try:
        from mien_generator.face.fomm.device.devices import DeviceError
        from mien_generator.face.fomm.generator import FommGenerator
    except ImportError as error:
        raise BackendUnavailable("the torch backend needs torch: pip install 'mien-generator[torch]'") from error
    precision = settings.precision
    if precision == "auto":
        precision = "float32" if settings.device == "cpu" else "float16"
    try:
        return [
            FommGenerator.load(
                weights, size=size, device=settings.device, precision=precision, max_batch=settings.max_batch
            )
            for size in sizes
        ]
    except DeviceError as error:
        raise BackendUnavailable(str(error)) from error


def _onnx(
    settings: GeneratorSettings, weights: Path, sizes: Sequence[int], threads: int
) -> Sequence[FaceGenerator[Any]]:
    if settings.precision not in {"auto", "float32", "int8"}:
        raise BackendUnavailable(f"the onnx backend supports float32 and int8, not {settings.precision}")
    try:
        from mien_generator.face.onnx.files import ModelFiles
        from mien_generator.face.onnx.generator import OnnxGenerator
        from mien_generator.face.onnx.sessions import Network, ProviderMissing
    except ImportError as error:
        raise BackendUnavailable("the onnx backend needs onnxruntime: pip install onnxruntime") from error
    try:
        network = Network.open(
            ModelFiles.read(weights), device=settings.device, precision=settings.precision, threads=threads
        )
        return [OnnxGenerator(network, size=size) for size in sizes]  # the graphs work with faces of any size
    except ProviderMissing as error:
        raise BackendUnavailable(str(error)) from error
