"""`mien model`: what the face generators' models are, and how they look. Importing this needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import numpy as np

from mien_generator.face.contract import MAX_FACE_SIZE, AvatarFace, RgbArray
from mien_generator.face.fomm.animation import (
    TRACK_RATE,
    AnimationError,
    ClipWriter,
    Crop,
    Step,
    animated,
    clip_pictures,
    clip_rate,
    clip_steps,
    read_picture,
    track_steps,
)
from mien_generator.face.fomm.config import WIDTHS, ConfigError, FommConfig, Width
from mien_generator.face.picture import scaled
from mien_shared.avatars import AvatarRecord
from mien_shared.motion import Keypoints

if TYPE_CHECKING:
    from mien_generator.face.fomm.count import ModelCount, PartCount

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)

#: Where ten keypoints lie in a face that is framed as crops are: frontal, the mouth closed. FaceKeypoint's order.
_FRAMED_FACE = (
    (-0.25, -0.39), (0.25, -0.39), (-0.21, -0.26), (0.21, -0.26), (0.0, -0.05),
    (0.0, 0.18), (0.0, 0.23), (0.0, 0.44), (-0.37, 0.14), (0.37, 0.14),
)  # fmt: skip


class TorchMissing(click.ClickException):
    """The optional part that this command runs on is not installed."""

    def __init__(self) -> None:
        super().__init__("this command needs torch: pip install 'mien-generator[torch]'")


@click.group()
def model() -> None:
    """The learned face generator: count it, import its weights, animate a picture with it."""


@model.command()
@click.option("--size", default=MAX_FACE_SIZE, show_default=True, help="Side of the picture, pixels.")
@click.option("--width", type=click.Choice(get_args(Width)), default="half", show_default=True)
@click.option("--weights", type=_FILE, help="Count the model of a weights file instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(size: int, width: Width, weights: Path | None, as_json: bool) -> None:
    """Multiply-accumulates and parameters, counted on the real modules."""
    _require_torch()
    from mien_generator.face.fomm.checkpoint import read_weights
    from mien_generator.face.fomm.count import count
    from mien_generator.face.fomm.weights import WeightsError

    try:
        counted = count(read_weights(weights).config if weights else WIDTHS[width], size)
    except (ConfigError, WeightsError) as error:
        raise click.ClickException(str(error)) from error
    name = weights.name if weights else f"{width} width"
    click.echo(json.dumps(_count_json(name, counted), indent=2) if as_json else _count_table(name, counted))


@model.command("import")
@click.argument("checkpoint", type=_FILE)
@click.option("--config", type=_FILE, help="The model's configuration, JSON. Default: taken from the tensors.")
@click.option("--out", type=_OUT, required=True, help="The safetensors file to write.")
def import_(checkpoint: Path, config: Path | None, out: Path) -> None:
    """Read a published CHECKPOINT (.pth.tar) once and write its weights as safetensors."""
    _require_torch()
    from mien_generator.face.fomm.checkpoint import read_checkpoint, write_weights
    from mien_generator.face.fomm.weights import WeightsError

    try:
        weights = read_checkpoint(checkpoint, FommConfig.from_json(config.read_bytes()) if config else None)
        write_weights(weights, out)
    except (ConfigError, WeightsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    values = sum(tensor.numel() for tensor in weights.tensors.values())
    click.echo(f"{out}: {len(weights.tensors)} tensors, {values / 1e6:.2f} M values, sha256 {weights.sha256}")


@model.command()
@click.option("--source", type=_FILE, required=True, help="The picture to animate.")
@click.option("--driving", type=_FILE, required=True, help="A clip (fomm) or a motion track, .motion (warp).")
@click.option("--out", type=_OUT, required=True, help="The mp4 to write.")
@click.option("--engine", type=click.Choice(["warp", "fomm"]), default="fomm", show_default=True)
@click.option("--weights", type=_FILE, help="What `mien model import` wrote (fomm).")
@click.option("--size", type=click.Choice(["256", "384"]), default="384", show_default=True)
@click.option("--crop", metavar="X,Y,SIZE", help="Square of the source picture. Default: its centre.")
@click.option("--driving-crop", metavar="X,Y,SIZE", help="Square of the clip. Default: its centre.")
@click.option("--record", type=_FILE, help="A stored avatar's record: its crop, and its keypoints (warp).")
@click.option("--result-only", is_flag=True, help="Leave source and driving picture out of the mp4.")
@click.option("--device", default="cpu", show_default=True, help="Where fomm runs: cpu, cuda, cuda:1.")
def animate(
    *,
    source: Path,
    driving: Path,
    out: Path,
    engine: str,
    weights: Path | None,
    size: str,
    crop: str | None,
    driving_crop: str | None,
    record: Path | None,
    result_only: bool,
    device: str,
) -> None:
    """Animate a picture: source, driving and result side by side in an mp4.

    With fomm the weights' own keypoint detector finds the keypoints of both, and the clip's motion since its first
    frame moves the source. With warp a track moves the source's keypoints: those of its record, else those of a face
    framed as crops are.
    """
    pixels = int(size)
    try:
        avatar_record = _read_record(record) if record else None
        box = Crop.parse(crop) if crop else _recorded_crop(avatar_record)
        picture = read_picture(source)
        face = np.ascontiguousarray(scaled((box or Crop.centre_of(picture)).of(picture), pixels))
        if engine == "warp":
            frames, rate = _warp_frames(face, driving, avatar_record), TRACK_RATE
        else:
            clip_crop = Crop.parse(driving_crop) if driving_crop else None
            frames, rate = _fomm_frames(face, driving, clip_crop, weights, device), clip_rate(driving)
        with ClipWriter(out, rate) as writer:
            for step, result in frames:
                shown = (result,) if result_only else (face, step.picture, result)
                writer.write(np.hstack([picture for picture in shown if picture is not None]))
    except (AnimationError, ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {writer.frames} frames, {float(rate):g} a second")


def _warp_frames(face: RgbArray, driving: Path, record: AvatarRecord | None) -> Iterator[tuple[Step, RgbArray]]:
    if driving.suffix != ".motion":
        raise AnimationError(f"the warp engine is driven by a motion track (.motion), not by {driving.name}")
    from mien_generator.face.warp import WarpGenerator

    framed = Keypoints(np.array(_FRAMED_FACE, np.float32), Keypoints.at_rest().jacobians)
    keypoints = record.source_keypoints() if record else framed
    return animated(WarpGenerator(), AvatarFace(face, keypoints), track_steps(driving, keypoints))


def _fomm_frames(
    face: RgbArray, driving: Path, driving_crop: Crop | None, weights: Path | None, device: str
) -> Iterator[tuple[Step, RgbArray]]:
    if driving.suffix == ".motion":
        # A track's keypoints are those of whoever made it; these weights' keypoints lie elsewhere on the face.
        raise AnimationError("the fomm engine is driven by a clip: a motion track's keypoints are not its own")
    if weights is None:
        raise AnimationError("the fomm engine needs --weights, a file that 'mien model import' wrote")
    _require_torch()
    from mien_generator.face.fomm.checkpoint import read_weights
    from mien_generator.face.fomm.generator import DeviceMissing, FommGenerator, FommKeypointFinder
    from mien_generator.face.fomm.weights import WeightsError

    try:
        loaded = read_weights(weights)
        generator = FommGenerator(loaded, size=face.shape[0], device=device)
    except (WeightsError, DeviceMissing) as error:
        raise click.ClickException(str(error)) from error
    finder = FommKeypointFinder(loaded, device=device)
    (keypoints,) = finder.find([face])
    pictures = clip_pictures(driving, face.shape[0], driving_crop)
    return animated(generator, AvatarFace(face, keypoints), clip_steps(pictures, finder, keypoints))


def _read_record(path: Path) -> AvatarRecord:
    try:
        return AvatarRecord.model_validate_json(path.read_bytes())
    except ValueError as error:  # pydantic's, whose own text is a page
        raise AnimationError(f"{path.name} is no avatar's record") from error


def _recorded_crop(record: AvatarRecord | None) -> Crop | None:
    return Crop(record.face_box.x, record.face_box.y, record.face_box.size) if record else None


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise TorchMissing


def _count_json(name: str, counted: ModelCount) -> dict[str, object]:
    return {
        "model": name,
        "size": counted.size,
        "macs": counted.macs,
        "macs_per_avatar": counted.macs - counted.macs_per_frame,
        "macs_per_frame": counted.macs_per_frame,
        "parameters": counted.parameters,
        "gmac": round(counted.macs / 1e9, 2),
        "mparameters": round(counted.parameters / 1e6, 2),
        "parts": [_part_json(part) for part in counted.generator],
        "keypoint_detector": counted.keypoint_detector and _part_json(counted.keypoint_detector),
    }


def _part_json(part: PartCount) -> dict[str, object]:
    return {"name": part.name, "per": part.per, "macs": part.macs, "parameters": part.parameters}


def _count_table(name: str, counted: ModelCount) -> str:
    def row(label: str, per: str, macs: int, parameters: int | None) -> str:
        values = "" if parameters is None else f"{parameters / 1e6:>12.2f} M"
        return f"  {label:<28}{per:<10}{macs / 1e9:>9.2f} G{values}"

    detector = counted.keypoint_detector
    return "\n".join(
        [
            f"First Order Motion Model, {name}, {counted.size}x{counted.size}",
            f"  {'part':<28}{'once per':<10}{'MAC':>11}{'parameters':>14}",
            *(row(part.name, part.per, part.macs, part.parameters) for part in counted.generator),
            row("generator", "", counted.macs, counted.parameters),
            row("  of it per frame", "", counted.macs_per_frame, None),
            *([row(f"{detector.name} (apart)", detector.per, detector.macs, detector.parameters)] if detector else []),
        ]
    )
