"""`mien model`: what the face generators' models are, and how they look. Importing this needs no torch."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from mien_generator.evaluation.cli import animate, evaluate
from mien_generator.face.contract import MAX_FACE_SIZE
from mien_generator.face.fomm.config import WIDTHS, ConfigError, FommConfig, Width

if TYPE_CHECKING:
    from mien_generator.face.fomm.count import ModelCount, PartCount

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)


class TorchMissing(click.ClickException):
    """The optional part that this command runs on is not installed."""

    def __init__(self) -> None:
        super().__init__("this command needs torch: pip install 'mien-generator[torch]'")


@click.group()
def model() -> None:
    """The learned face generator: count it, import its weights, measure it, animate a picture with it."""


model.add_command(evaluate)
model.add_command(animate)


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
