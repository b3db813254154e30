"""`python -m mien_bench.device --json`: measures FOMM's speed on a GPU or CPU, on a machine that has only torch.

Each variant ("arm") makes the same faces of the same avatars, from keypoints on the host to pictures on the host.
"As published" runs the whole network for every frame, like the published code, at full and half width. "Kept source"
runs the half-width network unchanged, but encodes the source only once. The other arms are our generator with different
options. `ms_a_face` is amortised: batches follow each other without a pause, and the next batch is submitted before
the last is collected. `single_ms` is the time of one single face from request to picture. Needs torch, numpy and
OpenCV. The weights are random, because speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
import torch

from mien_generator.face.contract import AvatarFace, FaceRequest
from mien_generator.face.fomm.config import (
    FULL_WIDTH,
    HALF_WIDTH,
    FommConfig,
    GeneratorConfig,
    HourglassConfig,
)
from mien_generator.face.fomm.count import count
from mien_generator.face.fomm.device.batches import GRAPH_SIZES
from mien_generator.face.fomm.device.blocks import Doubling, Folding, device_seconds
from mien_generator.face.fomm.device.devices import DeviceError, reachable
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.generator import FommGenerator, Precision, PreparedFomm, Ticket, picture_tensor
from mien_generator.face.fomm.occlusion_generator import GeneratorSource
from mien_generator.face.fomm.untrained import UntrainedWeights
from mien_generator.face.picture import scaled
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH, PasteRegion
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

if TYPE_CHECKING:
    from mien_shared.avatars import FaceBox

FRAME_RATE = 30
_AVATARS = 16
_CROP = 384
_LEAST_S = 0.5
_LEAST_RUNS = 5
_TINY = FommConfig(None, GeneratorConfig(8, 16, 2, 1, HourglassConfig(8, 16, 2)))


@dataclass(frozen=True, slots=True)
class Driven:
    """An avatar and the keypoints that move it."""

    avatar: AvatarFace
    driving: Keypoints


T = TypeVar("T")


class Runner(Protocol[T]):
    """One way to make faces."""

    def submit(self, driven: Sequence[Driven]) -> T: ...

    def collect(self, ticket: T) -> object: ...

    def predict(self, driven: Sequence[Driven]) -> torch.Tensor: ...


class Published:
    """The unmodified network on RGB pictures; with `keep_source` it encodes an avatar once, not for every frame."""

    def __init__(
        self, config: FommConfig, size: int, device: torch.device, dtype: torch.dtype, *, keep_source: bool
    ) -> None:
        memory_format = torch.channels_last if keep_source else torch.contiguous_format
        self._network = UntrainedWeights(config).generator().to(device, dtype, memory_format=memory_format)
        self._size, self._device, self._dtype = size, device, dtype
        self._kept: dict[int, GeneratorSource] | None = {} if keep_source else None

    def submit(self, driven: Sequence[Driven]) -> torch.Tensor:
        with torch.inference_mode():
            return self.predict(driven).mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def collect(self, ticket: torch.Tensor) -> object:
        return ticket.cpu().numpy()

    def predict(self, driven: Sequence[Driven]) -> torch.Tensor:
        """(B, 3, size, size) float32 in [0, 1]."""
        with torch.inference_mode():
            if self._kept is None:
                source = self._encoded([each.avatar for each in driven])
            else:
                source = GeneratorSource.stack([self._once(each.avatar, self._kept) for each in driven])
            driving = KeypointTensors.of([each.driving for each in driven], self._device)
            return self._network(source, driving).prediction.float()

    def _once(self, avatar: AvatarFace, kept: dict[int, GeneratorSource]) -> GeneratorSource:
        if id(avatar) not in kept:
            kept[id(avatar)] = self._encoded([avatar])
        return kept[id(avatar)]

    def _encoded(self, avatars: Sequence[AvatarFace]) -> GeneratorSource:
        pictures = [picture_tensor(scaled(avatar.rgb, self._size), self._device) for avatar in avatars]
        keypoints = KeypointTensors.of([avatar.keypoints for avatar in avatars], self._device)
        return self._network.prepare(torch.cat(pictures).to(self._dtype), keypoints)


class Ours:
    """Our generator with its prepared avatars."""

    def __init__(self, generator: FommGenerator, driven: Sequence[Driven]) -> None:
        self.generator = generator
        self._prepared = {id(each.avatar): generator.prepare(each.avatar) for each in driven}

    def submit(self, driven: Sequence[Driven]) -> Ticket:
        return self.generator.submit(self._requests(driven))

    def collect(self, ticket: Ticket) -> object:
        return self.generator.collect(ticket)

    def predict(self, driven: Sequence[Driven]) -> torch.Tensor:
        """(B, 3, size, size) float32 in [0, 1]."""
        return self.generator.predict(self._requests(driven))

    def avatar_mib(self) -> float:
        """Device memory of one avatar: its row of the bank and its region of the picture."""
        placements = [prepared.placement for prepared in self._prepared.values()]
        stills = [placement.still.numel() for placement in placements if placement]
        return (self.generator.bank.bytes_per_source + float(np.mean(stills or [0]))) / 2**20

    def _requests(self, driven: Sequence[Driven]) -> list[FaceRequest[PreparedFomm]]:
        return [FaceRequest(self._prepared[id(each.avatar)], each.driving) for each in driven]


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant to measure.

    crops: sides of the avatars' crops, used in turn; empty if the arm returns RGB faces without pasting them.
    """

    name: str
    width: FommConfig
    precision: Precision
    published: bool = False
    keep_source: bool = False
    graphs: bool = False
    compiled: bool = False
    folding: Folding | None = None
    crops: tuple[int, ...] = (_CROP,)


_NEAREST, _UNFUSED = Folding("nearest", fused_relu=True, channel_multiple=8), Folding(None, channel_multiple=8)
_OURS = Arm("ours, float16, graphs", HALF_WIDTH, "float16", graphs=True)

ARMS = {
    "full": Arm("full width as published, float32", FULL_WIDTH, "float32", published=True, crops=()),
    "half": Arm("half width as published, float32", HALF_WIDTH, "float32", published=True, crops=()),
    "kept": Arm("half width, kept source, float16", HALF_WIDTH, "float16", published=True, keep_source=True, crops=()),
    "eager": replace(_OURS, name="ours, float16, eager", graphs=False),
    "graphs": _OURS,
    "nearest": replace(_OURS, name="ours, doubling as published", folding=_NEAREST),
    "unfused": replace(_OURS, name="ours, ReLU apart", folding=_UNFUSED),
    "bfloat16": replace(_OURS, name="ours, bfloat16, graphs", precision="bfloat16"),
    "rgb": replace(_OURS, name="ours, RGB faces", crops=()),
    "crops": replace(_OURS, name="ours, every crop another size", crops=tuple(range(300, 508, 13))),
    "compiled": replace(_OURS, name="ours, compiled, graphs", folding=_UNFUSED, compiled=True),
}
#: Does not include `compiled`, because its start alone takes minutes.
_DEFAULT_ARMS = "full,half,kept,eager,graphs,nearest,unfused,bfloat16,rgb,crops"


@dataclass(frozen=True, slots=True)
class Figure:
    """The measurements of one arm at one size. psnr_db: against the unmodified network in float32."""

    arm: str
    size: int
    single_ms: float
    ms_a_face: dict[int, float]
    speakers_at_30_fps: int
    psnr_db: float | None
    start_s: float
    memory_mib: float | None
    avatar_mib: float | None
    doublings: list[Doubling | None] | None


def a_driven(index: int, crops: Sequence[int]) -> Driven:
    """Different pictures, keypoints and motions for different indices; with a paste region if there are crops."""
    random = np.random.default_rng(index)
    still = random.integers(0, 256, (FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    side = crops[index % len(crops)] if crops else _CROP
    box = cast("FaceBox", SimpleNamespace(x=400, y=100, size=side))  # a GPU machine has no pydantic
    rgb = still[box.y : box.y + side, box.x : box.x + side].copy()
    avatar = AvatarFace(rgb, _some_keypoints(random), PasteRegion.of(still, box) if crops else None)
    return Driven(avatar, _some_keypoints(random))


def start(arm: Arm, size: int, batches: Sequence[int], device: torch.device, driven: Sequence[Driven]) -> Runner[Any]:
    """An arm that is ready to be measured: kernels are chosen, graphs recorded, avatars prepared."""
    on_cuda = device.type == "cuda"
    if arm.published:
        dtype = torch.float16 if on_cuda and arm.precision == "float16" else torch.float32
        return Published(arm.width, size, device, dtype, keep_source=arm.keep_source)
    generator = FommGenerator(
        UntrainedWeights(arm.width),
        size=size,
        device=device,
        precision=arm.precision if on_cuda else "float32",
        batch_sizes=[batch for batch in batches if batch <= GRAPH_SIZES[-1]],
        folding=arm.folding if on_cuda else None,
        graphs=arm.graphs,
        compiled=arm.compiled,
    )
    return Ours(generator, driven)


def measure(arm: Arm, size: int, batches: Sequence[int], device: torch.device) -> Figure:
    """Start one arm at one size and measure it."""
    driven = [a_driven(index, arm.crops) for index in range(_AVATARS)]
    held_mib, begun_s = _allocated_mib(device), perf_counter()
    runner = start(arm, size, batches, device, driven)
    start_s = perf_counter() - begun_s
    single_ms = _single_ms(runner, driven[:1])
    ms_a_face = {batch: _amortised_ms(runner, [driven[i % _AVATARS] for i in range(batch)]) for batch in batches}
    generator = runner.generator if isinstance(runner, Ours) else None
    return Figure(
        arm=arm.name,
        size=size,
        single_ms=single_ms,
        ms_a_face=ms_a_face,
        speakers_at_30_fps=int(1000 / FRAME_RATE / min(ms_a_face.values())),
        psnr_db=_psnr_db(runner.predict(driven[:4]), _exact(arm, size, device, driven[:4])),
        start_s=start_s,
        memory_mib=_allocated_mib(device) - held_mib,
        avatar_mib=runner.avatar_mib() if isinstance(runner, Ours) else None,
        doublings=generator.network.doublings() if generator else None,
    )


def ceilings(device: torch.device) -> dict[str, float]:
    """The limits of this device: the rate of a large float16 product of random matrices, and of a memory copy."""
    if device.type != "cuda":
        return {}
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.float16) for _ in range(2))
    source = torch.empty(2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "float16_tflops": 2 * 8192**3 / device_seconds(lambda: a @ b) / 1e12,
        "copy_tb_s": 2 * 2**31 / device_seconds(lambda: target.copy_(source)) / 1e12,
    }


def floor_ms(config: FommConfig, size: int, tflops: float) -> float:
    """Lower bound of a face's time: its multiplications and additions as published, at the rate of a large product."""
    return 2 * count(config, size).macs_per_frame / tflops / 1e9


def profile(arm: Arm, size: int, batch: int, device: torch.device) -> str:
    """torch's profiler table for the batches of one arm, sorted by device time."""
    driven = [a_driven(index, arm.crops) for index in range(batch)]
    runner = start(arm, size, [batch], device, driven)
    runner.collect(runner.submit(driven))
    with torch.profiler.profile() as profiled:
        for _ in range(_LEAST_RUNS):
            runner.collect(runner.submit(driven))
    by_device = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(profiled.key_averages().table(sort_by=by_device, row_limit=40, max_name_column_width=80))


def report(
    arms: Sequence[Arm], sizes: Sequence[int], batches: Sequence[int], device: torch.device
) -> dict[str, object]:
    """The report as printed in JSON. The entry of an arm that fails holds the error; the other arms still run."""
    limits = ceilings(device)
    figures: list[dict[str, object]] = []
    for size in sizes:
        for arm in arms:
            try:
                figure = asdict(measure(arm, size, batches, device))
            except (RuntimeError, ValueError) as error:
                figure = {"arm": arm.name, "size": size, "error": f"{type(error).__name__}: {error}"[:2000]}
            figures.append(figure)
            sys.stderr.write(json.dumps(figure, default=float) + "\n")
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "ceilings": limits,
        "floor_ms": {size: floor_ms(HALF_WIDTH, size, limits["float16_tflops"]) for size in sizes if limits},
        "figures": figures,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="device_bench", description=__doc__)
    parser.add_argument("--device", default="cuda", help="Device to measure: cpu, cuda, cuda:1. Default: cuda.")
    parser.add_argument(
        "--arms", default=_DEFAULT_ARMS, help=f"Variants to measure, separated by commas, out of: {', '.join(ARMS)}."
    )
    parser.add_argument("--sizes", default="384,256", help="Sides of the faces in pixels, separated by commas.")
    parser.add_argument("--batches", default="1,2,4,8,16,32,64", help="Batch sizes, separated by commas.")
    parser.add_argument("--tiny", action="store_true", help="Use a tiny network, only to check that every arm runs.")
    parser.add_argument(
        "--profile", action="store_true", help="Print only torch's profile of the first arm at the first size."
    )
    parser.add_argument("--json", action="store_true", help="Print the full report as JSON instead of a table.")
    chosen = parser.parse_args(arguments)
    try:
        device = reachable(chosen.device)
        arms = [ARMS[name] for name in chosen.arms.split(",")]
    except (DeviceError, KeyError) as error:
        parser.error(str(error))
    if chosen.tiny:
        arms = [replace(arm, width=_TINY) for arm in arms]
        torch.set_num_threads(1)
    sizes, batches = _numbers(chosen.sizes), _numbers(chosen.batches)
    if chosen.profile:
        sys.stdout.write(profile(arms[0], sizes[0], max(batches), device) + "\n")
        return
    made = report(arms, sizes, batches, device)
    sys.stdout.write((json.dumps(made, default=float) if chosen.json else _table(made, batches)) + "\n")


def _table(made: Mapping[str, Any], batches: Sequence[int]) -> str:
    lines = [f"{made['device']}, torch {made['torch']}, {made['ceilings']}, floor {made['floor_ms']} ms a face"]
    lines.append(f"{'ms a face':40s} size   one " + "".join(f"{batch:>8d}" for batch in batches) + "  speakers   dB")
    for figure in made["figures"]:
        if "error" in figure:
            lines.append(f"{figure['arm']:40s} {figure['size']:4d}  {figure['error']}")
            continue
        lines.append(
            f"{figure['arm']:40s} {figure['size']:4d} {figure['single_ms']:6.2f}"
            + "".join(f"{figure['ms_a_face'][batch]:8.3f}" for batch in batches)
            + f"  {figure['speakers_at_30_fps']:8d} {figure['psnr_db']:4.0f}"
        )
    return "\n".join(lines)


def _single_ms(runner: Runner[T], driven: Sequence[Driven]) -> float:
    """Median time from request to picture."""
    times_s = []
    for _ in range(3 + 5 * _LEAST_RUNS):
        begun_s = perf_counter()
        runner.collect(runner.submit(driven))
        times_s.append(perf_counter() - begun_s)
    return 1000 * median(times_s[3:])


def _amortised_ms(runner: Runner[T], driven: Sequence[Driven]) -> float:
    """Time per face while batches follow each other; each batch is submitted before the previous one is collected."""
    for _ in range(2):
        runner.collect(runner.submit(driven))
    waiting: deque[T] = deque()
    runs, begun_s = 0, perf_counter()
    while runs < _LEAST_RUNS or perf_counter() - begun_s < _LEAST_S:
        waiting.append(runner.submit(driven))
        runs += 1
        if len(waiting) > 1:
            runner.collect(waiting.popleft())
    while waiting:
        runner.collect(waiting.popleft())
    return 1000 * (perf_counter() - begun_s) / (runs * len(driven))


def _exact(arm: Arm, size: int, device: torch.device, driven: Sequence[Driven]) -> torch.Tensor:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        return Published(arm.width, size, device, torch.float32, keep_source=False).predict(driven)


def _psnr_db(made: torch.Tensor, exact: torch.Tensor) -> float:
    squared_error = (made.cpu() - exact.cpu()).square().mean().clamp_min(1e-12)
    return float(-10 * squared_error.log10())


def _allocated_mib(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def _some_keypoints(random: np.random.Generator) -> Keypoints:
    points = random.uniform(-0.5, 0.5, (NUM_KEYPOINTS, 2)).astype(np.float32)
    return Keypoints(points, (np.eye(2) + random.normal(0, 0.1, (NUM_KEYPOINTS, 2, 2))).astype(np.float32))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
