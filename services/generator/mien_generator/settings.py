"""The generator's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mien_shared.settings import ServiceSettings


class GeneratorSettings(ServiceSettings):
    """Read from MIEN_<FIELD>; see ServiceSettings for what every service has."""

    port: int = Field(8082, ge=0, le=65535, description="Probes and metrics; nothing else")
    engine: Literal["warp", "fomm"] = Field("warp", description="warp, or fomm with torch and MIEN_WEIGHTS")
    weights: Path | None = Field(None, description="safetensors of the fomm engine, made by `mien model import`")
    device: str = Field("cpu", description="Where the fomm engine runs: cpu, cuda, cuda:1, ...")
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="What fomm computes in; float16 or bfloat16 on a GPU"
    )
    face_size: Literal[256, 384] = Field(384, description="Side of the faces that fomm makes: 256 or 384")
    capacity: int = Field(6, ge=1, description="Sessions this generator takes; 6 is what warp holds on one core")
    max_batch: int = Field(16, ge=1, description="Faces made in one run of the device")
    drain_s: float = Field(20.0, ge=0, description="How long SIGTERM waits for other generators to take the sessions")
    fps: int = Field(30, ge=5, le=60, description="Frame rate of the default motion, and the most of any session")
    bitrate_bps: int = Field(1_200_000, ge=100_000, description="Where every session's encoder starts")
