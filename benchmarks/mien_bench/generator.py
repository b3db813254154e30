"""`mien bench generator`: the time of a face on this machine's CPU, compared with what a user would run instead.

Every variant ("arm") makes faces of the same avatar, from keypoints in memory to pictures in memory. The arms take
turns in every round, so that other load on the machine slows all of them equally. `published` works like the published
code: the whole network for every frame, in torch, at full and half width. `kept source` is the half-width network that
encodes the source only once. If torch is not installed, its arms are skipped. Speed does not depend on the weights:
without a weights file, random ones are used.

GPUs have a separate bench with other arms: `python -m mien_bench.device`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np

from mien_generator.face.build import SHIPPED_WEIGHTS
from mien_generator.face.contract import AvatarFace, FaceGenerator, FaceRequest
from mien_generator.face.fomm.config import FULL_WIDTH, HALF_WIDTH, FommConfig
from mien_generator.face.fomm.shapes import tensor_shapes
from mien_generator.face.fomm.weights import StoredWeights, WeightsError
from mien_generator.face.onnx import calibration
from mien_generator.face.onnx.arithmetic import Range
from mien_generator.face.onnx.files import ModelFiles
from mien_generator.face.onnx.generator import OnnxGenerator
from mien_generator.face.onnx.graph import Graph
from mien_generator.face.onnx.network import animate_graph, prepare_graph
from mien_generator.face.onnx.sessions import Network, Precision
from mien_generator.face.warp import WarpGenerator
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
#: Side of the two square matrices whose product measures the machine's peak rate.
_GEMM_SIDE = 1024

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant, which makes `faces` faces in one run. macs: multiply-accumulates of one face."""

    name: str
    size: int
    faces: int
    run: Run
    macs: int | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians over the rounds for one face. ms: wall-clock time. cpu_ms: processor time on all cores."""

    arm: Arm
    ms: float
    cpu_ms: float


@click.command()
@click.option("--weights", type=_FILE, help="Weights file. Default: the bundled weights, or random ones without them.")
@click.option(
    "--size",
    "sizes",
    type=int,
    multiple=True,
    default=(256, 384),
    show_default=True,
    help="Side of the faces, in pixels. Repeat for several sizes.",
)
@click.option(
    "--batch",
    "batches",
    type=int,
    multiple=True,
    default=(1, 4),
    show_default=True,
    help="Faces in one run of the onnx backend. Repeat for several batch sizes.",
)
@click.option(
    "--threads",
    default=os.cpu_count() or 1,
    show_default=True,
    help="Threads that each measured network may use.",
)
@click.option("--rounds", default=7, show_default=True, help="Number of rounds; the report shows their median.")
@click.option("--peers/--no-peers", default=True, help="Also measure the published network in torch, if installed.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def generator(
    *,
    weights: Path | None,
    sizes: tuple[int, ...],
    batches: tuple[int, ...],
    threads: int,
    rounds: int,
    peers: bool,
    as_json: bool,
) -> None:
    """Measure the time of a face on the CPU: warp, onnx in float32 and 8-bit, and torch as published."""
    path = weights or (SHIPPED_WEIGHTS if SHIPPED_WEIGHTS.is_file() else None)
    try:
        files = ModelFiles.read(path) if path else untrained(HALF_WIDTH)
        arms = [arm for size in sizes for arm in _arms(files, size, batches, threads, peers)]
    except (WeightsError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    figures = measured(arms, rounds)
    peaks = _peaks(threads) if find_spec("onnx") else {}
    report = {
        "model": path.name if path else "untrained, half width",
        "threads": threads,
        "rounds": rounds,
        "peak_gmac_per_s": {name: round(peak, 1) for name, peak in peaks.items()},
        "figures": [_row(figure, figures, peaks) for figure in figures],
    }
    click.echo(json.dumps(report, indent=2) if as_json else _table(report))


def measured(arms: Sequence[Arm], rounds: int) -> list[Figure]:
    """Run every arm once to warm up, then measure all of them in turn, `rounds` times."""
    times: list[list[tuple[float, float]]] = [[] for _ in arms]
    for arm in arms:
        arm.run()
    for _ in range(rounds):
        for arm, found in zip(arms, times, strict=True):
            wall, cpu = perf_counter(), process_time()
            arm.run()
            found.append(((perf_counter() - wall) / arm.faces * 1e3, (process_time() - cpu) / arm.faces * 1e3))
    return [
        Figure(arm, median(wall for wall, _ in found), median(cpu for _, cpu in found))
        for arm, found in zip(arms, times, strict=True)
    ]


def untrained(config: FommConfig) -> ModelFiles:
    """A model like the bundled one, but with random weights. Needs the `onnx` package."""
    if not find_spec("onnx"):
        raise ValueError(
            "no weights file was found, and random weights need the onnx package: give --weights, "
            "or pip install 'mien-generator[export]'"
        )
    own = replace(config, keypoint_detector=None, pixel_centres=True, source_residual=True)
    values = np.random.default_rng(0)
    weights = StoredWeights(
        own,
        {
            # Positive, because variances must be positive; small, so that nothing overflows.
            name: np.abs(values.normal(0, 0.05, shape)).astype(np.float32)
            for name, shape in tensor_shapes(own).items()
        },
    )
    metadata = {"config": own.to_json()}
    exact = animate_graph(own, weights.arrays)
    ranges: dict[str, Range] = {maps.point: (0.0, 8.0) for maps in exact.observed}
    integers = animate_graph(own, weights.arrays, ranges)
    return ModelFiles(
        "untrained",
        weights,
        {
            "prepare": prepare_graph(own, weights.arrays).serialised(metadata),
            "animate": exact.graph.serialised(metadata),
            "animate-int8": integers.graph.serialised(metadata),
        },
        ranges,
    )


def _arms(files: ModelFiles, size: int, batches: Sequence[int], threads: int, peers: bool) -> Iterator[Arm]:
    avatar = _avatar(size)
    yield _engine("warp", WarpGenerator(), avatar, 1)
    config, arrays = files.weights.config, files.weights.arrays
    macs = animate_graph(config, arrays).macs(size)
    precisions: tuple[Precision, ...] = ("float32", "int8") if files.ranges is not None else ("float32",)
    for precision in precisions:
        network = Network.open(files, precision=precision, threads=threads)
        engine = OnnxGenerator(network, size=size)
        for faces in batches:
            yield replace(_engine(f"onnx {precision}", engine, avatar, faces), macs=macs)
    if peers and find_spec("torch"):
        yield from _torch_arms(avatar, size, threads)


def _engine(name: str, engine: FaceGenerator[Any], avatar: AvatarFace, faces: int) -> Arm:
    prepared = engine.prepare(avatar)
    requests = [FaceRequest(prepared, avatar.keypoints)] * faces
    return Arm(name, avatar.rgb.shape[0], faces, lambda: engine.animate(requests))


def _torch_arms(avatar: AvatarFace, size: int, threads: int) -> Iterator[Arm]:
    import torch

    from mien_generator.face.fomm.checkpoint import random_weights
    from mien_generator.face.fomm.first_order import KeypointTensors
    from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator

    torch.set_num_threads(threads)
    keypoints = KeypointTensors.of([avatar.keypoints], torch.device("cpu"))
    picture = torch.from_numpy(avatar.rgb).permute(2, 0, 1)[None].float() / 255

    def published(network: OcclusionAwareGenerator) -> Run:
        def run() -> object:
            with torch.inference_mode():
                return network(network.prepare(picture, keypoints), keypoints).prediction

        return run

    def kept(network: OcclusionAwareGenerator, dtype: torch.dtype) -> Run:
        network = network.to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            source = network.prepare(picture.to(dtype, memory_format=torch.channels_last), keypoints)

        def run() -> object:
            with torch.inference_mode():
                return network(source, keypoints).prediction

        return run

    half = random_weights(replace(HALF_WIDTH, keypoint_detector=None))
    full = random_weights(replace(FULL_WIDTH, keypoint_detector=None))
    yield Arm("torch float32, full width, published", size, 1, published(full.generator()))
    yield Arm("torch float32, half width, published", size, 1, published(half.generator()))
    yield Arm("torch float32, half width, kept source", size, 1, kept(half.generator(), torch.float32))
    yield Arm("torch bfloat16, half width, kept source", size, 1, kept(half.generator(), torch.bfloat16))


def _avatar(size: int) -> AvatarFace:
    values = np.random.default_rng(0)
    points = values.uniform(-0.5, 0.5, (NUM_KEYPOINTS, 2)).astype(np.float32)
    keypoints = Keypoints(points, Keypoints.at_rest().jacobians)
    return AvatarFace(values.integers(0, 256, (size, size, 3), np.uint8), keypoints)


def _peaks(threads: int) -> dict[str, float]:
    """The rate of one large matrix product, in 10^9 multiply-accumulates a second, for float32 and 8-bit integers."""
    values = np.random.default_rng(0)
    side = (_GEMM_SIDE, _GEMM_SIDE)
    peaks = {}
    for name, kind, left, right, made in (
        ("float32", "MatMul", np.float32, np.float32, np.float32),
        ("int8", "MatMulInteger", np.uint8, np.int8, np.int32),
    ):
        graph = Graph("gemm")
        weight = graph.parameter("weight", values.integers(-9, 9, side).astype(right))
        graph.output(graph.op(kind, graph.input("x", left, *side), weight), "y", made, *side)
        session = calibration.opened(graph, threads)
        x = values.integers(0, 9, side).astype(left)
        arm = Arm(name, _GEMM_SIDE, 1, partial(session.run, None, {"x": x}))
        (figure,) = measured([arm], 9)
        peaks[name] = _GEMM_SIDE**3 / figure.ms / 1e6
    return peaks


def _row(figure: Figure, figures: Sequence[Figure], peaks: dict[str, float]) -> dict[str, object]:
    arm = figure.arm
    row: dict[str, object] = {
        "arm": arm.name,
        "size": arm.size,
        "faces": arm.faces,
        "ms_a_face": round(figure.ms, 2),
        "cpu_ms_a_face": round(figure.cpu_ms, 2),
    }
    for width in ("full", "half"):
        for other in figures:
            if other.arm.size == arm.size and other.arm.name == f"torch float32, {width} width, published":
                row[f"times_faster_than_{width}_published"] = round(other.ms / figure.ms, 2)
    peak = peaks.get("int8" if arm.name.endswith("int8") else "float32")
    if arm.macs and peak:
        row["gmac"] = round(arm.macs / 1e9, 2)
        row["floor_ms"] = round(arm.macs / peak / 1e6, 2)
    return row


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['model']}, {report['threads']} threads; peak {report['peak_gmac_per_s']} GMAC/s",
        f"  {'arm':<42}{'size':>5}{'faces':>7}{'ms a face':>11}{'CPU ms':>9}{'floor':>8}{'x full':>8}{'x half':>8}",
    ]
    for row in report["figures"]:
        full, half = (row.get(f"times_faster_than_{width}_published", "") for width in ("full", "half"))
        lines.append(
            f"  {row['arm']:<42}{row['size']:>5}{row['faces']:>7}{row['ms_a_face']:>11}{row['cpu_ms_a_face']:>9}"
            f"{row.get('floor_ms', ''):>8}{full:>8}{half:>8}"
        )
    return "\n".join(lines)
