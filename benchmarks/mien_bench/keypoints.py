"""`mien bench keypoints`: the sender's time for a frame, compared with searching the face again in every frame.

ours: cut the crop from a 720p picture and run the encoder on it, on one thread. search: look at the whole grid of the
same picture. The two take turns frame by frame, so that other load on the machine slows both equally.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter

import click
import cv2
import numpy as np

from mien_encoder.count import count
from mien_encoder.crop import CropSquare, RgbArray, cut
from mien_encoder.finder import faces_in
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder

_WARM_UP_FRAMES = 5
_WIDTH, _HEIGHT = 1280, 720
_BOX = CropSquare(448.0, 120.0, 384.0)


@dataclass(frozen=True, slots=True)
class EncoderFigures:
    """Medians over the frames, milliseconds a frame. ratio: the search's time divided by ours."""

    frames: int
    cut_ms: float
    encode_ms: float
    ours_ms: float
    search_ms: float
    ratio: float
    macs: int
    parameters: int
    size_bytes: int


def measure(frames: int) -> EncoderFigures:
    """Time both ways on a picture of soft shapes: the content of the picture hardly changes their time."""
    cv2.setNumThreads(1)
    picture, encoder = _picture(), KeypointEncoder()
    cutting, encoding, searching = [], [], []
    for _ in range(frames + _WARM_UP_FRAMES):
        crop = cut(picture, _BOX, CROP_SIZE)
        cutting.append(_ms(partial(cut, picture, _BOX, CROP_SIZE)))
        encoding.append(_ms(partial(encoder.encode, crop)))
        searching.append(_ms(partial(faces_in, picture, encoder)))
    cut_ms, encode_ms, search_ms = (
        round(median(times[_WARM_UP_FRAMES:]), 3) for times in (cutting, encoding, searching)
    )
    costs = count()
    ours_ms = round(cut_ms + encode_ms, 3)
    return EncoderFigures(
        frames=frames,
        cut_ms=cut_ms,
        encode_ms=encode_ms,
        ours_ms=ours_ms,
        search_ms=search_ms,
        ratio=round(search_ms / ours_ms, 1),
        macs=costs.macs,
        parameters=costs.parameters,
        size_bytes=costs.size_bytes,
    )


@click.command()
@click.option("--frames", default=60, show_default=True, type=click.IntRange(min=1), help="Frames to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def keypoints(frames: int, as_json: bool) -> None:
    """Measure the encoder's time per frame on one core, compared with searching the face again."""
    figures = measure(frames)
    if as_json:
        click.echo(json.dumps(asdict(figures), indent=2))
        return
    click.echo(
        f"encoder: {figures.encode_ms:.2f} ms a frame, and {figures.cut_ms:.2f} ms to cut its crop from 720p; "
        f"a whole search: {figures.search_ms:.1f} ms ({figures.ratio:g} times as much)\n"
        f"{figures.macs / 1e6:.2f} M MAC, {figures.parameters / 1e6:.3f} M parameters, "
        f"{figures.size_bytes / 1e6:.2f} MB"
    )


def _ms(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return (perf_counter() - began) * 1e3


def _picture() -> RgbArray:
    """A picture of soft shapes, (720, 1280, 3)."""
    coarse = np.random.default_rng(5).integers(0, 255, (18, 32, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
