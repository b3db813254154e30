"""The generator's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PositiveInt

from mien_shared.settings import ServiceSettings


class GeneratorSettings(ServiceSettings):
    """Read from MIEN_<FIELD>; see ServiceSettings for what every service has."""

    port: int = Field(8082, ge=0, le=65535, description="Probes and metrics; nothing else")
    face_backend: Literal["auto", "onnx", "torch", "warp"] = Field(
        "auto",
        validation_alias=AliasChoices("MIEN_FACE_BACKEND", "MIEN_ENGINE", "face_backend"),
        description="What makes the faces: onnx and torch run the network, warp needs none; auto is onnx or warp",
    )
    weights: Path | None = Field(
        None, description="safetensors of the network, made by `mien model import`; unset: the shipped ones"
    )
    device: str = Field("cpu", description="Where the network runs: cpu, cuda, cuda:1, ...; tensorrt with onnx")
    precision: Literal["auto", "float32", "float16", "bfloat16", "int8"] = Field(
        "auto", description="What the network computes in: the fastest that was proven, unless one is named"
    )
    face_size: Literal[256, 384] = Field(
        384, description="Side of the network's faces on the best tier; below 384 there is one of 256, below that warp"
    )
    floor_fps: int = Field(
        24, ge=0, le=60, description="A session steps down from a network without time for so many frames; 0: never"
    )
    capacity: Annotated[PositiveInt | None, BeforeValidator(lambda value: None if value == "" else value)] = Field(
        None, description="Sessions this generator takes; unset: what it finds at its start that it can hold"
    )
    cores: float | None = Field(
        None, gt=0, description="CPU cores it may count on; unset: those of its affinity and control group"
    )
    cache_folder: Path | None = Field(
        None, description="Where the machine's measured speed is remembered; unset: $XDG_CACHE_HOME/mien"
    )
    max_batch: int = Field(16, ge=1, description="Faces made in one run of the device")
    drain_s: float = Field(20.0, ge=0, description="How long SIGTERM waits for other generators to take the sessions")
    fps: int = Field(30, ge=5, le=60, description="Frame rate of the default motion, and the most of any session")
    bitrate_bps: int = Field(1_200_000, ge=100_000, description="Where every session's encoder starts")
