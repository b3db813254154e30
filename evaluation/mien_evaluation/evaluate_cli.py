"""`mien model evaluate` and `mien model animate`. Importing this module needs neither torch nor dlib."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import click
import numpy as np

from mien_encoder.crop import CropSquare, cut
from mien_encoder.finder import PatientFinder
from mien_encoder.keypoints import EncoderFileError, KeypointEncoder
from mien_encoder.smoothing import DeadZones, OneEuro
from mien_encoder.tracker import FaceTracker
from mien_evaluation.animation import TRACK_RATE, Step, animated, clip_steps, track_steps
from mien_evaluation.clips import (
    ClipError,
    ClipWriter,
    clip_pictures,
    clip_rate,
    is_clip,
    parse_square,
    read_picture,
    within,
)
from mien_evaluation.detectors import EvaluationPartMissing, FaceReader, face_reader, instruments
from mien_evaluation.keypoints import (
    EncoderFinder,
    FilmedClip,
    FoundFace,
    Framing,
    KeypointFinder,
    LabelledClip,
    followed,
    found_in,
    held,
    tracked,
    whole,
)
from mien_evaluation.metrics import Scores, rounded
from mien_evaluation.reenactment import ClipScores, DrivingClip, Motion, measured, over_identities
from mien_evaluation.sheet import Sheet
from mien_generator.face.build import BackendUnavailable, portrait_ladder
from mien_generator.face.contract import AvatarFace, FaceGenerator
from mien_generator.face.fomm.config import ConfigError
from mien_generator.face.fomm.weights import StoredWeights, WeightsError
from mien_generator.face.warp import WarpGenerator
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarRecord
from mien_shared.machine import usable_cores

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EITHER = click.Path(exists=True, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)

_BACKENDS: tuple[str, ...] = get_args(GeneratorSettings.model_fields["face_backend"].annotation)
_PRECISIONS: tuple[str, ...] = get_args(GeneratorSettings.model_fields["precision"].annotation)
_DEFAULT_BACKEND: str = GeneratorSettings.model_fields["face_backend"].default
_WARP = "warp"

KeypointSource = Literal["encoder", "weights"]

#: Errors that a command reports to the user; the text of each says what is wrong.
_ERRORS = (ClipError, ConfigError, EncoderFileError, BackendUnavailable, EvaluationPartMissing, WeightsError, OSError)

_backend = click.option(
    "--backend",
    "--engine",  # its name before
    "backend",
    type=click.Choice(_BACKENDS),
    default=_DEFAULT_BACKEND,
    show_default=True,
    help="Backend that makes the faces. auto means onnx, or warp if the weights or onnxruntime are missing.",
)
_weights = click.option("--weights", type=_FILE, help="Weights file of the backend. Default: the bundled weights.")
_device = click.option(
    "--device", default="cpu", show_default=True, help="Device that runs the network: cpu, cuda, cuda:1."
)
_precision = click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    default="float32",
    show_default=True,
    help="Number format in which the network computes.",
)
_keypoints = click.option(
    "--keypoints",
    type=click.Choice(get_args(KeypointSource)),
    help="Source of the keypoints: Mien's encoder, or the keypoint detector in the weights file. Default: the detector "
    "if the weights have one, because a network needs the keypoints that it was trained with; otherwise the encoder.",
)


@click.command()
@click.option(
    "--clip", "clips", type=_EITHER, multiple=True, help="A video or a folder of pictures. Repeat for several clips."
)
@click.option("--folder", type=_FOLDER, help="Folder of clips; every clip in it is measured.")
@click.option(
    "--labelled",
    type=_FOLDER,
    multiple=True,
    help="A set written by `mien_landmarks label`, or a folder of such sets. Repeat for several.",
)
@click.option(
    "--size", type=click.Choice(["256", "384"]), default="256", show_default=True, help="Side of the faces, in pixels."
)
@_backend
@_weights
@_device
@_precision
@_keypoints
@click.option(
    "--motion",
    type=click.Choice(get_args(Motion)),
    default="absolute",
    show_default=True,
    help="absolute: send the driving keypoints as they are. relative: send their change since the first frame.",
)
@click.option("--cropped", is_flag=True, help="The clips are already face crops: use the whole frames.")
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Measure only every N-th frame."
)
@click.option("--sheet", type=_OUT, help="PNG file to write: driving frames and results in rows (one clip only).")
@click.option("--columns", type=click.IntRange(min=1), default=8, show_default=True, help="Frames on the sheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    *,
    clips: tuple[Path, ...],
    folder: Path | None,
    labelled: tuple[Path, ...],
    size: str,
    backend: str,
    weights: Path | None,
    device: str,
    precision: str,
    keypoints: KeypointSource | None,
    motion: Motion,
    cropped: bool,
    every: int,
    sheet: Path | None,
    columns: int,
    as_json: bool,
) -> None:
    """Measure self-reenactment from the first frame: L1, AKD and AED of the backend, of warp and of the still frame.

    Clips of one person count as one in the mean. The person is known from the clip's name, or from meta.json in a
    labelled set. If a clip cannot be measured, the command reports it and continues with the others. The exit status is
    1 only if no clip was measured.
    """
    pixels = int(size)
    films = [*clips, *_clips_in(folder)]
    sets = [path for one in labelled for path in _sets_in(one)]
    if not films and not sets:
        raise click.UsageError("give --clip, --folder or --labelled")
    if sheet is not None and len(films) + len(sets) != 1:
        raise click.UsageError("--sheet shows one clip")
    try:
        reader = face_reader()
        faces = _backends(backend, weights, pixels, device, precision)
        found_by = _keypoint_source(backend, weights, keypoints) if films else None
        finder = _finder(found_by, weights, device) if found_by else None
        framing = _framing(finder, cropped) if finder else None
    except _ERRORS as error:
        raise click.ClickException(str(error)) from error
    results: list[ClipScores] = []
    failed: dict[str, str] = {}
    for path in (*films, *sets):
        try:
            clip = _clip(path, pixels, finder if path in films else None, framing)
            results.append(_measured(clip, faces, reader, motion=motion, every=every, sheet=sheet, columns=columns))
        except (ClipError, OSError) as error:
            failed[path.name] = str(error)
            click.echo(f"Error: {error}", err=True)
    for generator in faces.values():
        generator.close()
    if not results:
        raise click.exceptions.Exit(1)
    if as_json:
        setup = {"size": pixels, "keypoints": found_by or "labels", "motion": motion, "every": every}
        click.echo(json.dumps(setup | instruments() | _results_json(results, failed), indent=2))
    else:
        click.echo(_results_table(results))


@click.command()
@click.option("--source", type=_FILE, required=True, help="Picture to animate.")
@click.option("--driving", type=_EITHER, required=True, help="Clip or motion track (.motion) that moves the picture.")
@click.option("--out", type=_OUT, required=True, help="mp4 file to write.")
@_backend
@_weights
@click.option(
    "--size", type=click.Choice(["256", "384"]), default="384", show_default=True, help="Side of the face, in pixels."
)
@_device
@_precision
@_keypoints
@click.option(
    "--crop", metavar="X,Y,SIZE", help="Square of the source picture to use. Default: a square around the face."
)
@click.option(
    "--driving-crop",
    metavar="X,Y,SIZE",
    help="Square of the clip to use. Default: a square around the face; with --keypoints encoder it follows the face.",
)
@click.option("--record", type=_FILE, help="Record (JSON) of a stored avatar. Its crop and its keypoints are used.")
@click.option("--result-only", is_flag=True, help="Write only the result, without the source and driving pictures.")
def animate(
    *,
    source: Path,
    driving: Path,
    out: Path,
    backend: str,
    weights: Path | None,
    size: str,
    device: str,
    precision: str,
    keypoints: KeypointSource | None,
    crop: str | None,
    driving_crop: str | None,
    record: Path | None,
    result_only: bool,
) -> None:
    """Animate a picture: source, driving and result side by side in an mp4.

    The reference is the clip's frame whose pose is nearest to the source's pose. The clip's motion relative to that
    reference is applied to the source's keypoints.
    """
    pixels = int(size)
    try:
        avatar_record = _read_record(record) if record else None
        found_by = _keypoint_source(backend, weights, keypoints)
        if found_by == "weights" and (record or _is_track(driving)):
            # Records and tracks hold the encoder's keypoints; this detector's keypoints lie elsewhere on the face.
            raise ClipError(
                "weights with their own keypoint detector take no motion track and no record: "
                "give a clip as --driving, and --crop instead of --record"
            )
        needs_finder = avatar_record is None or not _is_track(driving)
        finder = _finder(found_by, weights, device) if needs_finder else None
        avatar = _avatar(source, pixels, finder, _square(crop, avatar_record), avatar_record)
        steps, rate = _steps(driving, avatar, finder, driving_crop)
        made_by, why_no_network = _generator(backend, weights, pixels, device, precision)
        if why_no_network:
            click.echo(f"animated by {made_by.name}: {why_no_network}", err=True)
        with closing(made_by) as generator, ClipWriter(out, rate) as mp4:
            for step, result in animated(generator, avatar, steps):
                shown = (result,) if result_only else (avatar.rgb, step.picture, result)
                mp4.write(np.hstack([picture for picture in shown if picture is not None]))
    except _ERRORS as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {mp4.frames} frames, {float(rate):g} a second")


# --- backend and keypoints --------------------------------------------------------------------------------------------


def _generator(
    backend: str, weights: Path | None, size: int, device: str, precision: str
) -> tuple[FaceGenerator[Any], str | None]:
    """The best tier for these settings and this size; if `auto` found no network to run, also the reason."""
    values: dict[str, Any] = {"face_backend": backend, "weights": weights, "device": device, "precision": precision}
    # Built without validation: a measurement does not need the service's secrets and addresses.
    settings = GeneratorSettings.model_construct(None, **values, face_size=256 if size == 256 else 384)
    ladder, fallback = portrait_ladder(settings, max(1, round(usable_cores())))
    best, *others = ladder.rungs
    for rung in others:
        rung.generator.close()
    return best.generator, fallback.text if fallback else None


def _backends(
    backend: str, weights: Path | None, size: int, device: str, precision: str
) -> dict[str, FaceGenerator[Any]]:
    """Warp first, then the generator that the options name."""
    generator, why_none = _generator(backend, weights, size, device, precision)
    if why_none:
        click.echo(f"only the baselines are measured: {why_none}", err=True)
    return {_WARP: WarpGenerator()} | {generator.name: generator}


def _keypoint_source(backend: str, weights: Path | None, wish: KeypointSource | None) -> KeypointSource:
    has_own = weights is not None and StoredWeights.read(weights).config.keypoint_detector is not None
    if wish == "weights" and not has_own:
        raise ClipError("--keypoints weights needs --weights with a file that has a keypoint detector")
    return wish or ("weights" if has_own and backend != _WARP else "encoder")


def _finder(source: KeypointSource, weights: Path | None, device: str) -> KeypointFinder:
    if source == "encoder" or weights is None:
        return EncoderFinder(KeypointEncoder())
    try:
        from mien_generator.face.fomm.checkpoint import read_weights
        from mien_generator.face.fomm.device.devices import DeviceError
        from mien_generator.face.fomm.generator import FommKeypointFinder
    except ImportError as error:
        raise BackendUnavailable(
            "the keypoint detector in the weights needs torch: pip install 'mien-generator[torch]'"
        ) from error
    try:
        return FommKeypointFinder(read_weights(weights), device=device)
    except DeviceError as error:
        raise BackendUnavailable(str(error)) from error


def _framing(finder: KeypointFinder, cropped: bool = False) -> Framing:
    if cropped:
        return whole
    return tracked(finder.encoder if isinstance(finder, EncoderFinder) else KeypointEncoder())


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _clips_in(folder: Path | None) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_clip(path)) if folder else []


def _sets_in(folder: Path) -> list[Path]:
    """The set itself, or the sets in it."""
    if (folder / "frames.npy").exists():
        return [folder]
    return sorted(path for path in folder.iterdir() if (path / "frames.npy").exists())


def _clip(path: Path, size: int, finder: KeypointFinder | None, framing: Framing | None) -> DrivingClip:
    if finder is None or framing is None:
        return LabelledClip(path, size)
    return FilmedClip(path, size, finder, framing)


def _measured(
    clip: DrivingClip,
    faces: dict[str, FaceGenerator[Any]],
    reader: FaceReader,
    *,
    motion: Motion,
    every: int,
    sheet: Path | None,
    columns: int,
) -> ClipScores:
    if sheet is None:
        return measured(clip, faces, reader, motion=motion, every=every)
    pictures = Sheet(-(-clip.count() // every), columns)
    scores = measured(clip, faces, reader, motion=motion, every=every, watch=pictures.add)
    pictures.save(sheet)
    return scores


def _results_json(results: Sequence[ClipScores], failed: dict[str, str]) -> dict[str, object]:
    def methods(scores: dict[str, Scores]) -> dict[str, object]:
        return {name: rounded(score) for name, score in scores.items()}

    clips = [
        {
            "clip": one.clip,
            "identity": one.identity,
            "frames": one.frames,
            "frames_held": one.held,
            "frames_without_landmarks": one.unread,
            "methods": methods(dict(one.methods)),
        }
        for one in results
    ]
    mean = {
        "identities": len({one.identity for one in results}),
        "frames": sum(one.frames for one in results),
        "methods": methods(over_identities(results)),
    }
    return {"mean": mean, "clips": clips, "failed": [{"clip": name, "error": text} for name, text in failed.items()]}


def _results_table(results: Sequence[ClipScores]) -> str:
    def cell(value: float | None, decimals: int) -> str:
        return f"{value:>9.{decimals}f}" if value is not None else f"{'-':>9}"

    lines = [f"{'clip':<24}{'frames':>7}{'unread':>8}  {'method':<8}{'L1':>9}{'AKD':>9}{'AED':>9}"]

    def block(title: str, methods: dict[str, Scores]) -> None:
        for name, scores in methods.items():
            figures = cell(scores.l1, 4) + cell(scores.akd, 2) + cell(scores.aed, 3)
            lines.append(f"{title:<24}{scores.frames:>7}{scores.unread:>8}  {name:<8}{figures}")

    for one in results:
        block(one.clip, dict(one.methods))
    if len(results) > 1:
        block(f"mean of {len({one.identity for one in results})} people", over_identities(results))
    return "\n".join(lines)


# --- animate ----------------------------------------------------------------------------------------------------------


def _square(crop: str | None, record: AvatarRecord | None) -> CropSquare | None:
    if crop is not None and record is not None:
        raise ClipError("--record already gives the crop: leave out --crop")
    if crop is not None:
        return parse_square(crop)
    return CropSquare(record.face_box.x, record.face_box.y, record.face_box.size) if record else None


def _avatar(
    source: Path, size: int, finder: KeypointFinder | None, square: CropSquare | None, record: AvatarRecord | None
) -> AvatarFace:
    rgb = read_picture(source)
    if square is not None:
        within(square, rgb)
    if record is not None and square is not None:
        return AvatarFace(cut(rgb, square, size), record.source_keypoints())
    assert finder is not None  # without a record there is always a finder
    square = square or _framing(finder)(rgb)
    if square is None:
        raise ClipError(f"no face in {source.name}: give its place with --crop")
    return AvatarFace(cut(rgb, square, size), found_in(rgb, square, finder, source.name).keypoints)


def _is_track(driving: Path) -> bool:
    return driving.suffix == ".motion"


def _steps(
    driving: Path, avatar: AvatarFace, finder: KeypointFinder | None, crop: str | None
) -> tuple[Iterator[Step], Fraction]:
    if finder is None or _is_track(driving):
        return track_steps(driving, avatar.keypoints), TRACK_RATE
    rate = clip_rate(driving)
    found = _found(driving, finder, parse_square(crop) if crop else None)
    return clip_steps(driving, found, avatar.keypoints, avatar.rgb.shape[0]), rate


def _found(driving: Path, finder: KeypointFinder, square: CropSquare | None) -> Sequence[FoundFace | None]:
    if square is None and isinstance(finder, EncoderFinder):
        tracker = FaceTracker(finder.encoder, PatientFinder(finder.encoder))
        return followed(driving, tracker, DeadZones(OneEuro()))  # as `mien send`
    first = next(clip_pictures(driving), None)
    if first is None:
        raise ClipError(f"{driving.name} has no frames")
    square = within(square, first) if square else _framing(finder)(first)
    if square is None:
        raise ClipError(f"no face in the first frame of {driving.name}: give its place with --driving-crop")
    return held(driving, square, finder)


def _read_record(path: Path) -> AvatarRecord:
    try:
        return AvatarRecord.model_validate_json(path.read_bytes())
    except ValueError as error:  # pydantic's own text is a page long
        raise ClipError(f"{path.name} is not the record of an avatar") from error
