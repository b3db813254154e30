"""The generator's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PositiveInt

from mien_shared.settings import ServiceSettings


def _number(value: object) -> object:
    """The environment has only text, which equals no number of a Literal."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


#: A number, or nothing: an empty variable of the environment.
MaybeCount = Annotated[PositiveInt | None, BeforeValidator(lambda value: None if value == "" else value)]


class GeneratorSettings(ServiceSettings):
    """Read from MIEN_<FIELD>. ServiceSettings has the settings of every service."""

    port: int = Field(8082, ge=0, le=65535, description="TCP port of probes and metrics. 0: any free port.")
    face_backend: Literal["auto", "onnx", "torch", "warp"] = Field(
        "auto",
        validation_alias=AliasChoices("MIEN_FACE_BACKEND", "MIEN_ENGINE", "face_backend"),
        description="Backend that makes the faces: onnx or torch with the network, warp without. auto: onnx or warp.",
    )
    weights: Path | None = Field(
        None,
        description="Weights file of the network, written by `mien model import`. Unset: the bundled weights.",
    )
    device: str = Field(
        "cpu", description="Device that runs the network: cpu, cuda, cuda:1 and so on; with onnx also tensorrt."
    )
    precision: Literal["auto", "float32", "float16", "bfloat16", "int8"] = Field(
        "auto", description="Number format in which the network computes. auto: the fastest format that was validated."
    )
    face_size: Annotated[Literal[256, 384], BeforeValidator(_number)] = Field(
        384, description="Side in pixels of the network's faces on the best tier. The tiers below 384 are 256 and warp."
    )
    floor_fps: int = Field(
        24,
        ge=0,
        le=60,
        description="Lowest frame rate on a network tier. Below it, a session moves to a cheaper tier. 0: never.",
    )
    capacity: MaybeCount = Field(
        None, description="Most sessions of this generator. Unset: the generator measures its capacity at its start."
    )
    cores: float | None = Field(
        None,
        gt=0,
        description="CPU cores that this generator may use. Unset: all cores of its affinity and control group.",
    )
    workers: MaybeCount = Field(
        None,
        description="Most worker processes of this generator. They start as sessions come. Unset: one for each core.",
    )
    cache_folder: Path | None = Field(
        None,
        description="Folder for the measured speed of the machine. Unset: $XDG_CACHE_HOME/mien or ~/.cache/mien.",
    )
    max_batch: int = Field(16, ge=1, description="Most faces in one run of the device.")
    drain_s: float = Field(
        20.0, ge=0, description="Seconds to wait after SIGTERM until other generators have taken the sessions."
    )
    fps: int = Field(
        30, ge=5, le=60, description="Frame rate of the default motion, and the highest frame rate of any session."
    )
    bitrate_bps: int = Field(
        1_200_000, ge=100_000, description="Bitrate in bits per second at which each session's H.264 encoder starts."
    )
