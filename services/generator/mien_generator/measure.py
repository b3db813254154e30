"""What this machine can do, measured when a generator starts: a second or two, once for each machine and model.

Other processes may be starting at the same moment. They can only make things slower, so the fastest of several runs
is what counts; and figures whose runs disagree are used but not remembered, so that the next start measures again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
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
from mien_shared.media.clock import VIDEO_CLOCK_HZ

logger = logging.getLogger(__name__)

_RUNS = 4
#: A tier is given so long, warming up aside, and larger batches are left out when it is over.
_TIER_BUDGET_S = 0.6
#: A batch that saves less than this of its faces' time one by one is not worth waiting for, nor are larger ones.
_WORTH = 0.1
_FINISH_FRAMES = 12
#: Runs that differ by more than this say that the machine was busy with something else.
_NOISY = 1.5


class Measurement(BaseModel):
    """A Speed as it is remembered.

    tiers: of each tier on the device, the best first, (faces, seconds). noisy: the runs disagreed.
    """

    tiers: list[list[tuple[int, float]]]
    warp_s: float
    finish_s: float
    noisy: bool

    def speed(self) -> Speed:
        """Raises ValueError for costs that no device has."""
        device = tuple(BatchCost(tuple(points)) for points in self.tiers)
        if min(self.warp_s, self.finish_s) <= 0:
            raise ValueError("frames cost no time")
        return Speed(device, self.warp_s, self.finish_s)


def measured_speed(ladder: Ladder, encoder: str, max_batch: int, cores: float, folder: Path) -> Speed:
    """From the folder if this machine has measured this model before, else measured now and written there.

    A folder that cannot be read or written only costs time.
    """
    path = folder / speed_file(ladder, encoder, max_batch, cores)
    if (speed := _remembered(path)) is not None:
        return speed
    measurement = measure(ladder, encoder, max_batch)
    if not measurement.noisy:
        _remember(path, measurement)
    return measurement.speed()


def measure(ladder: Ladder, encoder: str, max_batch: int) -> Measurement:
    """Run every tier, the compositor and the encoder on a speaker made of arithmetic."""
    noise = _Noise()
    tiers = [_batches(rung, max_batch, noise) for rung in ladder.rungs[:-1]]
    ((_, warp_s),) = _batches(ladder.rungs[-1], 1, noise)
    finish_s = _finish_s(encoder, ladder.rungs[-1], noise)
    return Measurement(tiers=tiers, warp_s=warp_s, finish_s=finish_s, noisy=noise.is_heard)


class _Noise:
    """Whether any runs of one thing disagreed."""

    is_heard = False

    def fastest(self, run: Callable[[], object], budget_s: float = float("inf")) -> float:
        times_s: list[float] = []
        while len(times_s) < 2 or (len(times_s) < _RUNS and sum(times_s) < budget_s):
            begun_s = perf_counter()
            run()
            times_s.append(perf_counter() - begun_s)
        self.is_heard |= sorted(times_s)[len(times_s) // 2] > _NOISY * min(times_s)
        return min(times_s)


def _batches(rung: Rung, max_batch: int, noise: _Noise) -> list[tuple[int, float]]:
    """(faces, seconds) of batches that are worth it, each twice as large as the one before."""
    still = draw_speaker()
    avatar = replace(face_of(still), region=Compositor(still, CROP).region if rung.on_device else None)
    prepared = rung.generator.prepare(avatar)
    motion = talking(avatar.keypoints)
    costs: dict[int, float] = {}
    faces, spent_s = 1, 0.0
    while faces <= max_batch:
        requests = [FaceRequest(prepared, next(motion)) for _ in range(faces)]
        rung.generator.animate(requests)  # its first run also allocates, and may compile
        costs[faces] = noise.fastest(partial(rung.generator.animate, requests), _TIER_BUDGET_S)
        spent_s += _RUNS * costs[faces]
        if (faces > 1 and costs[faces] > (1 - _WORTH) * 2 * costs[faces // 2]) or spent_s > _TIER_BUDGET_S:
            break
        faces *= 2
    return list(BatchCost.measured(costs).points)


def _finish_s(h264_name: str, last: Rung, noise: _Noise) -> float:
    """Composing and encoding a frame of a talking face, on average over some frames."""
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

    run()  # begins on an IDR
    return noise.fastest(run) / _FINISH_FRAMES


def usable_cores() -> float:
    """The cores that this process may use: its affinity, and its control group's quota where that is less."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) / int(period))


def default_cache_folder() -> Path:
    """Where the XDG base directory specification puts what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mien"


def speed_file(ladder: Ladder, encoder: str, max_batch: int, cores: float) -> str:
    """The name under which a speed is remembered: of all that it depends on."""
    facts: Sequence[object] = (
        version("mien-generator"), _cpu(), cores, ladder.device, ladder.model, ladder.names, encoder, max_batch,
    )  # fmt: skip
    return f"speed-{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _remembered(path: Path) -> Speed | None:
    try:
        return Measurement.model_validate_json(path.read_bytes()).speed()
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        logger.warning("remembered speed not usable", extra={"path": str(path), "error": str(error)})
        return None


def _remember(path: Path, measurement: Measurement) -> None:
    """Whole or not at all: several generators may start at once."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(measurement.model_dump_json())
        part.replace(path)
    except OSError as error:
        logger.info("speed not remembered", extra={"error": str(error)})
