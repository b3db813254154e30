"""`mien model`: inspect, import, export and measure the face generator's models. Importing this needs no torch."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, get_args

import click

from mien_evaluation.evaluate_cli import animate, evaluate
from mien_generator.face.contract import MAX_FACE_SIZE
from mien_generator.face.fomm.config import WIDTHS, ConfigError, FommConfig, Width

if TYPE_CHECKING:
    from mien_encoder.count import EncoderCount
    from mien_generator.face.fomm.count import ModelCount, PartCount

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_OUT_FOLDER = click.Path(file_okay=False, path_type=Path)


class TorchMissing(click.ClickException):
    """The command needs torch, which is not installed."""

    def __init__(self) -> None:
        super().__init__("this command needs torch: pip install 'mien-generator[torch]'")


class OnnxMissing(click.ClickException):
    """The command writes ONNX graphs and needs the onnx package, which is not installed. Running graphs does not."""

    def __init__(self) -> None:
        super().__init__("this command needs onnx: pip install 'mien-generator[export]'")


@click.group()
def model() -> None:
    """The learned face generator: count its cost, import its weights, measure it, animate a picture with it."""


model.add_command(evaluate)
model.add_command(animate)


@model.command()
@click.option("--size", default=MAX_FACE_SIZE, show_default=True, help="Side of the picture, in pixels.")
@click.option(
    "--width",
    type=click.Choice(get_args(Width)),
    default="half",
    show_default=True,
    help="Network to count. full: channel counts as published for FOMM. half: the ultra-lightweight paper's generator.",
)
@click.option("--weights", type=_FILE, help="Count the model in this weights file instead; --width is ignored.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def info(size: int, width: Width, weights: Path | None, as_json: bool) -> None:
    """Count multiply-accumulates and parameters of the model and of the encoder K.

    The table also shows the multiply-accumulates of one frame in ONNX Runtime: the same function after exact rewrites,
    including channels that only pad its vectors.
    """
    from mien_encoder.count import count as count_encoder
    from mien_encoder.model_file import EncoderFileError
    from mien_generator.face.fomm.count import count
    from mien_generator.face.fomm.shapes import blank_arrays
    from mien_generator.face.fomm.weights import StoredWeights, WeightsError
    from mien_generator.face.onnx.network import animate_graph

    try:
        config = StoredWeights.read(weights).config if weights else WIDTHS[width]
        counted, encoder = count(config, size), count_encoder()
        rewritten = animate_graph(config, blank_arrays(config)).macs(size)
    except (ConfigError, WeightsError, EncoderFileError) as error:
        raise click.ClickException(str(error)) from error
    name = weights.name if weights else f"{width} width"
    if as_json:
        click.echo(json.dumps(_count_json(name, counted, rewritten, encoder), indent=2))
    else:
        click.echo(_count_table(name, counted, rewritten, encoder))


@model.command("import")
@click.argument("checkpoint", type=_FILE)
@click.option("--config", type=_FILE, help="Configuration of the model (JSON). Default: derived from the tensors.")
@click.option("--out", type=_OUT, required=True, help="safetensors file to write.")
@click.option("--half", is_flag=True, help="Write float16, like the bundled weights: the file has half the size.")
def import_(checkpoint: Path, config: Path | None, out: Path, *, half: bool) -> None:
    """Convert a published CHECKPOINT (.pth.tar) to a safetensors file."""
    _require_torch()
    from mien_generator.face.fomm.checkpoint import read_checkpoint, write_weights
    from mien_generator.face.fomm.weights import WeightsError

    try:
        weights = read_checkpoint(checkpoint, FommConfig.from_json(config.read_bytes()) if config else None)
        weights = weights.half() if half else weights
        write_weights(weights, out)
    except (ConfigError, WeightsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    values = sum(tensor.numel() for tensor in weights.tensors.values())
    click.echo(f"{out}: {len(weights.tensors)} tensors, {values / 1e6:.2f} M values, sha256 {weights.sha256}")


@model.command()
@click.argument("weights", type=_FILE)
@click.option("--standalone", type=_OUT_FOLDER, help="Also write graphs that contain their weights to this folder.")
def export(weights: Path, standalone: Path | None) -> None:
    """Write the ONNX graphs of WEIGHTS (.safetensors) next to it, and a list with the SHA-256 of each file.

    The graphs hold no weights: the backend takes them from the safetensors file when it opens a graph.
    The 8-bit graph is written only if `mien model calibrate` has written the ranges.

    --standalone also writes graphs for your own server: NAME-prepare.onnx runs once for each avatar, NAME-animate.onnx
    runs for every frame. They compute in float32, use only standard operators (opset 20) and take any batch and size.
    docs/decisions/0009 describes their inputs and outputs.
    """
    _require_onnx()
    from mien_generator.face.fomm.weights import WeightsError
    from mien_generator.face.onnx import files

    try:
        written = files.export(weights)
        if standalone is not None:
            written += files.export_standalone(weights, standalone)
    except (ConfigError, WeightsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in written:
        click.echo(f"{path}: {path.stat().st_size} bytes")


@model.command()
@click.argument("weights", type=_FILE)
@click.option(
    "--clip",
    "folders",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="Folder of labelled crops. Repeat for several clips.",
)
@click.option("--frames", default=8, show_default=True, help="Number of frames to use from each clip.")
@click.option("--size", default=MAX_FACE_SIZE, show_default=True, help="Side of the faces, in pixels.")
@click.option("--threads", default=0, show_default=True, help="CPU threads to use; 0 means one for each core.")
def calibrate(weights: Path, folders: tuple[Path, ...], frames: int, size: int, threads: int) -> None:
    """Find the ranges of the 8-bit integers for WEIGHTS (.safetensors) on real motion, then export with these ranges.

    A clip is a folder with frames.npy (N, S, S, 3) uint8 and keypoints.npy (N, 10, 6). Its first frame with a face is
    the avatar, and evenly spaced frames drive it. The command then measures the loss through 8 bits on frames between
    the calibration frames.
    """
    _require_onnx()
    from mien_generator.face.fomm.weights import StoredWeights, WeightsError
    from mien_generator.face.onnx import calibration, files
    from mien_generator.face.onnx.generator import OnnxGenerator

    try:
        clips = [calibration.Clip.read(folder, frames) for folder in folders]
        between = [calibration.Clip.read(folder, frames, offset=0.5) for folder in folders]
        ranges = calibration.calibrate(StoredWeights.read(weights), clips, size=size, threads=threads)
        files.write_ranges(weights, ranges)
        files.export(weights)
        integers, exact = (
            OnnxGenerator.load(weights, size=size, precision=precision, threads=threads)
            for precision in ("int8", "float32")
        )
    except (ConfigError, WeightsError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    decibels = calibration.psnr(integers, exact, between)
    click.echo(
        f"{weights.name}: {len(ranges)} ranges from {sum(len(clip.driving) for clip in clips)} frames; PSNR of 8-bit "
        f"against float32 on {len(decibels)} other frames: {mean(decibels):.1f} dB, worst {min(decibels):.1f} dB"
    )


def _require_onnx() -> None:
    if find_spec("onnx") is None:
        raise OnnxMissing


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise TorchMissing


def _count_json(name: str, counted: ModelCount, rewritten: int, encoder: EncoderCount) -> dict[str, object]:
    return {
        "model": name,
        "size": counted.size,
        "macs": counted.macs,
        "macs_per_avatar": counted.macs_per_avatar,
        "macs_per_frame": counted.macs_per_frame,
        "macs_per_frame_rewritten": rewritten,
        "parameters": counted.parameters,
        "gmac": round(counted.macs / 1e9, 2),
        "mparameters": round(counted.parameters / 1e6, 2),
        "parts": [_part_json(part) for part in counted.generator],
        "encoder": {
            "macs": encoder.macs,
            "parameters": encoder.parameters,
            "mmac": round(encoder.macs / 1e6, 2),
            "mparameters": round(encoder.parameters / 1e6, 3),
            "bytes": encoder.size_bytes,
            "sha256": encoder.sha256,
        },
        "picture_at_rest": counted.at_rest and _part_json(counted.at_rest),
        "keypoint_detector": counted.keypoint_detector and _part_json(counted.keypoint_detector),
    }


def _part_json(part: PartCount) -> dict[str, object]:
    return {"name": part.name, "per": part.per, "macs": part.macs, "parameters": part.parameters}


def _count_table(name: str, counted: ModelCount, rewritten: int, encoder: EncoderCount) -> str:
    def row(label: str, per: str, macs: int, parameters: int) -> str:
        values = f"{parameters / 1e6:>12.2f} M" if parameters else ""
        return f"  {label:<28}{per:<10}{macs / 1e9:>9.2f} G{values}"

    extra = [part for part in (counted.at_rest, counted.keypoint_detector) if part is not None]
    return "\n".join(
        [
            f"First Order Motion Model, {name}, {counted.size}x{counted.size}",
            f"  {'part':<28}{'once per':<10}{'MAC':>11}{'parameters':>14}",
            *(row(part.name, part.per, part.macs, part.parameters) for part in counted.generator),
            row("generator", "", counted.macs, counted.parameters),
            row("  per frame", "", counted.macs_per_frame, 0),
            row("  per frame, onnx backend", "", rewritten, 0),
            *(row(f"{part.name} (extra)", part.per, part.macs, part.parameters) for part in extra),
            f"Encoder K, 256x256: {encoder.macs / 1e6:.2f} M MAC, {encoder.parameters / 1e6:.3f} M parameters, "
            f"{encoder.size_bytes / 1e6:.2f} MB",
        ]
    )
