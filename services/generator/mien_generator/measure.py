"""Measures the speed of this machine when a generator starts. It takes a second or two, once per machine and model.

Other processes may start at the same moment. They can only slow the measurement down, so the fastest of several runs
counts. If the runs differ much, the figures are used but not stored, so that the next start measures again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel, ValidationError

from mien_generator.capacity import Speed
from mien_generator.cost import BatchCost
from mien_generator.face.contract import FaceRequest
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import FRAME_RATE, H264Encoder
from mien_generator.specimen import CROP, draw_speaker, face_of, talking
from mien_shared.machine import processor_name
from mien_shared.media.clock import VIDEO_CLOCK_HZ

logger = logging.getLogger(__name__)

_RUNS = 4
#: Time for the measurement of one tier, without warm-up. When it is used up, larger batches are not measured.
_TIER_BUDGET_S = 0.6
#: If a doubled batch saves less than this share of time per face, larger batches are not measured.
_WORTH = 0.1
_FINISH_FRAMES = 12
#: Runs that differ by more than this factor show that the machine was busy with other work.
_NOISY = 1.5


class Measurement(BaseModel):
    """A Speed as it is stored.

    tiers: for each tier on the device, the best first: (faces, seconds). noisy: the runs differed too much.
    """

    tiers: list[list[tuple[int, float]]]
    warp_s: float
    finish_s: float
    noisy: bool

    def speed(self) -> Speed:
        """The Speed that was stored. Raises ValueError if a cost is impossible."""
        device = tuple(BatchCost(tuple(points)) for points in self.tiers)
        if min(self.warp_s, self.finish_s) <= 0:
            raise ValueError("the time of a frame must be above 0")
        return Speed(device, self.warp_s, self.finish_s)


def measured_speed(ladder: Ladder, encoder: str, max_batch: int, cores: float, folder: Path) -> Measurement:
    """The speed of this machine with this model: read from the folder, or else measured and stored there.

    If the folder cannot be read or written, every start measures again.
    """
    path = folder / speed_file(ladder, encoder, max_batch, cores)
    if (stored := _load_stored(path)) is not None:
        return stored
    measurement = measure(ladder, encoder, max_batch)
    if not measurement.noisy:
        _store(path, measurement)
    return measurement


def measure(ladder: Ladder, encoder: str, max_batch: int) -> Measurement:
    """Measure every tier, the compositor and the H.264 encoder with a computed picture of a speaker."""
    noise = _Noise()
    tiers = [_batches(rung, max_batch, noise) for rung in ladder.rungs[:-1]]
    ((_, warp_s),) = _batches(ladder.rungs[-1], 1, noise)
    finish_s = _finish_s(encoder, ladder.rungs[-1], noise)
    return Measurement(tiers=tiers, warp_s=warp_s, finish_s=finish_s, noisy=noise.is_noisy)


class _Noise:
    """Times runs and notes whether those of any measurement differed too much."""

    is_noisy = False

    def fastest(self, run: Callable[[], object], budget_s: float = float("inf")) -> float:
        times_s: list[float] = []
        while len(times_s) < 2 or (len(times_s) < _RUNS and sum(times_s) < budget_s):
            begun_s = perf_counter()
            run()
            times_s.append(perf_counter() - begun_s)
        self.is_noisy |= sorted(times_s)[len(times_s) // 2] > _NOISY * min(times_s)
        return min(times_s)


def _batches(rung: Rung, max_batch: int, noise: _Noise) -> list[tuple[int, float]]:
    """(faces, seconds) of the useful batch sizes: 1, 2, 4 and so on."""
    still = draw_speaker()
    avatar = replace(face_of(still), region=Compositor(still, CROP).region if rung.on_device else None)
    prepared = rung.generator.prepare(avatar)
    motion = talking(avatar.keypoints)
    costs: dict[int, float] = {}
    faces, spent_s = 1, 0.0
    while faces <= max_batch:
        requests = [FaceRequest(prepared, next(motion)) for _ in range(faces)]
        rung.generator.animate(requests)  # warm-up: the first run also allocates, and may compile
        costs[faces] = noise.fastest(partial(rung.generator.animate, requests), _TIER_BUDGET_S)
        spent_s += _RUNS * costs[faces]
        if (faces > 1 and costs[faces] > (1 - _WORTH) * 2 * costs[faces // 2]) or spent_s > _TIER_BUDGET_S:
            break
        faces *= 2
    return list(BatchCost.measured(costs).points)


def _finish_s(h264_name: str, last: Rung, noise: _Noise) -> float:
    """Seconds to compose and encode one frame of a talking face, on average."""
    still = draw_speaker()
    avatar = face_of(still)
    prepared, compositor, encoder = last.generator.prepare(avatar), Compositor(still, CROP), H264Encoder(h264_name)
    motion = islice(talking(avatar.keypoints), _FINISH_FRAMES)
    faces = last.generator.animate([FaceRequest(prepared, driving) for driving in motion])
    frames = 0

    def run() -> None:
        nonlocal frames
        for face in faces:
            encoder.encode(compositor.compose(face), frames * VIDEO_CLOCK_HZ // FRAME_RATE)
            frames += 1

    run()  # the first frame is an IDR, which must not count
    return noise.fastest(run) / _FINISH_FRAMES


def default_cache_folder() -> Path:
    """Mien's cache folder by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mien"


def speed_file(ladder: Ladder, encoder: str, max_batch: int, cores: float) -> str:
    """The file name under which a speed is stored. It depends on everything that the speed depends on."""
    facts: Sequence[object] = (
        version("mien-generator"), processor_name(), cores,
        ladder.device, ladder.model, ladder.names, encoder, max_batch,
    )  # fmt: skip
    return f"speed-{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"


def _load_stored(path: Path) -> Measurement | None:
    try:
        stored = Measurement.model_validate_json(path.read_bytes())
        stored.speed()
        return stored
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        logger.warning("stored speed not usable, measuring again", extra={"path": str(path), "error": str(error)})
        return None


def _store(path: Path, measurement: Measurement) -> None:
    """Store the measurement atomically, because several generators may start at once."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(measurement.model_dump_json())
        part.replace(path)
    except OSError as error:
        logger.info("speed not stored", extra={"error": str(error)})
