"""`mien bench encode` and `mien bench compose`: a frame's cost after its face is made, compared with the usual way.

ours: the face is written into its rectangle of the YUV picture, then the picture is encoded. whole frame: the face is
pasted into a full RGB picture, the picture is converted to YUV 4:2:0, then encoded with x264 ultrafast zerolatency.
Both use the same target bitrate and one thread. They take turns frame by frame, so that other load on the machine
slows both equally. The time to make the face (warp) is measured too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import av
import click
import cv2
import numpy as np

from mien_generator.face.contract import FaceRequest, RgbArray
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_generator.face.warp import WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import DEFAULT_BITRATE_BPS, FRAME_RATE, H264Encoder, choose_h264_encoder
from mien_generator.specimen import CROP, draw_speaker, face_of, talking
from mien_shared.avatars import FaceBox
from mien_shared.media.clock import VIDEO_CLOCK_HZ

_WARM_UP_FRAMES = 10
_PTS_STEP = VIDEO_CLOCK_HZ // FRAME_RATE


@dataclass(frozen=True, slots=True)
class EncodeFigures:
    """Medians over the frames; milliseconds a frame, kilobits a second at 30 frames a second."""

    encoder: str
    frames: int
    warp_ms: float
    compose_ms: float
    encode_ms: float
    ours_ms: float
    whole_frame_ms: float
    ratio: float
    ours_kbps: float
    whole_frame_kbps: float


class WholeFramePath:
    """The usual way: convert and encode a full RGB picture for each frame."""

    def __init__(self, still: RgbArray, crop: FaceBox, bitrate_bps: int) -> None:
        self._picture = still.copy()
        self._place = (slice(crop.y, crop.y + crop.size), slice(crop.x, crop.x + crop.size))
        self._context = av.video.codeccontext.VideoCodecContext.create("libx264", "w")
        self._context.width, self._context.height, self._context.pix_fmt = FRAME_WIDTH, FRAME_HEIGHT, "yuv420p"
        self._context.framerate, self._context.time_base = Fraction(FRAME_RATE), Fraction(1, VIDEO_CLOCK_HZ)
        self._context.bit_rate, self._context.thread_count = bitrate_bps, 1
        self._context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "x264-params": "log=1",
        }

    def compose(self, face: RgbArray) -> av.VideoFrame:
        self._picture[self._place] = face
        return av.VideoFrame.from_ndarray(self._picture, format="rgb24").reformat(format="yuv420p", threads=1)

    def encode(self, face: RgbArray, pts_90k: int) -> bytes:
        frame = self.compose(face)
        frame.pts, frame.time_base = pts_90k, Fraction(1, VIDEO_CLOCK_HZ)
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


def measure(still: RgbArray, frames: int) -> EncodeFigures:
    """Run both ways over `frames` frames of a talking face in the (720, 1280, 3) RGB picture."""
    avatar = face_of(still)
    generator, compositor = WarpGenerator(), Compositor(still, CROP)
    prepared = generator.prepare(avatar)
    encoder = H264Encoder(choose_h264_encoder(), DEFAULT_BITRATE_BPS)
    whole = WholeFramePath(still, CROP, DEFAULT_BITRATE_BPS)
    times_s: list[tuple[float, float, float, float]] = []
    sizes: list[tuple[int, int]] = []
    for i, driving in zip(range(_WARM_UP_FRAMES + frames), talking(avatar.keypoints), strict=False):
        t0 = perf_counter()
        (face,) = generator.animate([FaceRequest(prepared, driving)])
        t1 = perf_counter()
        frame = compositor.compose(face)
        t2 = perf_counter()
        ours = encoder.encode(frame, i * _PTS_STEP).data
        t3 = perf_counter()
        usual = whole.encode(face, i * _PTS_STEP)
        t4 = perf_counter()
        times_s.append((t1 - t0, t2 - t1, t3 - t2, t4 - t3))
        sizes.append((len(ours), len(usual)))
    times_ms = [[1000 * t for t in row] for row in times_s[_WARM_UP_FRAMES:]]
    warp_ms, compose_ms, encode_ms, whole_ms = (median(column) for column in zip(*times_ms, strict=True))
    ours_ms = median(row[1] + row[2] for row in times_ms)
    kbps = [sum(column) * 8 * FRAME_RATE / frames / 1000 for column in zip(*sizes[_WARM_UP_FRAMES:], strict=True)]
    return EncodeFigures(
        encoder.name, frames, warp_ms, compose_ms, encode_ms, ours_ms, whole_ms, ours_ms / whole_ms, kbps[0], kbps[1]
    )


@dataclass(frozen=True, slots=True)
class ComposeFigures:
    """Medians over the frames, milliseconds. copy_ms: writing the face's YUV rectangle once, the lower bound."""

    frames: int
    ours_ms: float
    whole_frame_ms: float
    copy_ms: float
    ratio: float


def measure_compose(still: RgbArray, frames: int) -> ComposeFigures:
    """Run our way and the whole-frame way in turn, on the faces of a talking speaker."""
    avatar = face_of(still)
    generator, compositor = WarpGenerator(), Compositor(still, CROP)
    prepared = generator.prepare(avatar)
    whole = WholeFramePath(still, CROP, DEFAULT_BITRATE_BPS)
    rectangle = np.zeros((CROP.size * 3 // 2, CROP.size), np.uint8)
    destination = np.empty_like(rectangle)
    times_ms: list[tuple[float, float, float]] = []
    for driving in islice(talking(avatar.keypoints), _WARM_UP_FRAMES + frames):
        (face,) = generator.animate([FaceRequest(prepared, driving)])
        t0 = perf_counter()
        compositor.compose(face)
        t1 = perf_counter()
        whole.compose(face)
        t2 = perf_counter()
        destination[:] = rectangle
        t3 = perf_counter()
        times_ms.append((1000 * (t1 - t0), 1000 * (t2 - t1), 1000 * (t3 - t2)))
    ours_ms, whole_ms, copy_ms = (median(column) for column in zip(*times_ms[_WARM_UP_FRAMES:], strict=True))
    return ComposeFigures(frames, ours_ms, whole_ms, copy_ms, ours_ms / whole_ms)


def load_picture(path: Path) -> RgbArray:
    """A picture file as (720, 1280, 3) RGB, cropped to that aspect; raises click.BadParameter if it cannot be read."""
    loaded = cv2.imread(str(path))
    if loaded is None:
        raise click.BadParameter(f"{path} is not a picture")
    height, width = loaded.shape[:2]
    scale = max(FRAME_WIDTH / width, FRAME_HEIGHT / height)
    size = (round(width * scale), round(height * scale))
    picture = cv2.resize(loaded, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (size[1] - FRAME_HEIGHT) // 2, (size[0] - FRAME_WIDTH) // 2
    rgb: RgbArray = cv2.cvtColor(picture[top : top + FRAME_HEIGHT, left : left + FRAME_WIDTH], cv2.COLOR_BGR2RGB)
    return rgb


_frames_option = click.option(
    "--frames", default=300, show_default=True, type=click.IntRange(min=10), help="Frames to measure."
)
_avatar_option = click.option(
    "--avatar", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A picture instead of the drawn one."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")


@click.command()
@_frames_option
@_avatar_option
@_json_option
def encode(frames: int, avatar: Path | None, as_json: bool) -> None:
    """Measure composing and encoding of one 720p session, compared with converting a whole RGB frame."""
    cv2.setNumThreads(1)  # as in a generator, whose sessions share the cores
    figures = measure(load_picture(avatar) if avatar else draw_speaker(), frames)
    if as_json:
        click.echo(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in asdict(figures).items()}))
        return
    click.echo(f"{figures.frames} frames, 1280x720, {figures.encoder}, median a frame")
    click.echo(f"  face (warp)            {figures.warp_ms:6.2f} ms")
    click.echo(
        f"  ours                   {figures.ours_ms:6.2f} ms  {figures.ours_kbps:6.0f} kbit/s"
        f"  (compose {figures.compose_ms:.2f}, encode {figures.encode_ms:.2f})"
    )
    click.echo(f"  whole RGB frame        {figures.whole_frame_ms:6.2f} ms  {figures.whole_frame_kbps:6.0f} kbit/s")
    click.echo(f"  ratio                  {figures.ratio:6.2f}")


@click.command()
@_frames_option
@_avatar_option
@_json_option
def compose(frames: int, avatar: Path | None, as_json: bool) -> None:
    """Measure composing a face into its 720p picture, compared with converting the whole picture."""
    cv2.setNumThreads(1)  # as in a generator, whose sessions share the cores
    figures = measure_compose(load_picture(avatar) if avatar else draw_speaker(), frames)
    if as_json:
        click.echo(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(figures).items()}))
        return
    click.echo(f"{figures.frames} frames, 1280x720, median a frame")
    click.echo(f"  ours                   {figures.ours_ms:6.3f} ms")
    click.echo(f"  whole RGB frame        {figures.whole_frame_ms:6.3f} ms")
    click.echo(f"  one copy of the face   {figures.copy_ms:6.3f} ms")
    click.echo(f"  ratio                  {figures.ratio:6.2f}")
