"""Which face generator runs here, by the settings."""

from __future__ import annotations

from typing import Any

from mien_generator.face.contract import FaceGenerator
from mien_generator.face.warp import WarpGenerator
from mien_generator.settings import GeneratorSettings


class EngineUnavailable(RuntimeError):
    """The engine that was asked for cannot run here."""


def make_faces(settings: GeneratorSettings) -> FaceGenerator[Any]:
    """The engine of the settings; raises EngineUnavailable, or the weights' own named error."""
    if settings.engine == "warp":
        return WarpGenerator()
    if settings.weights is None:
        raise EngineUnavailable("the fomm engine needs MIEN_WEIGHTS: make them with `mien model import`")
    try:
        from mien_generator.face.fomm.generator import DeviceMissing, FommGenerator
    except ImportError as error:
        raise EngineUnavailable("the fomm engine needs torch: pip install 'mien-generator[torch]'") from error
    try:
        return FommGenerator.load(
            settings.weights, size=settings.face_size, device=settings.device, precision=settings.precision
        )
    except DeviceMissing as error:
        raise EngineUnavailable(str(error)) from error
