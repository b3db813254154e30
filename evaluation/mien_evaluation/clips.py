"""Reads and writes clips and pictures. Uses no neural network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

from mien_encoder.crop import CropSquare
from mien_generator.face.contract import RgbArray
from mien_shared.media.pace import usual_rate
from mien_shared.media.upright import Orientation

#: Frame rate assumed for a folder of pictures: VoxCeleb's rate, which FOMM's preprocessing keeps.
FOLDER_RATE = Fraction(25)
PICTURES = (".png", ".jpg", ".jpeg")
CLIPS = (".mp4", ".m4v", ".mpg", ".mov", ".mkv", ".webm", ".avi", ".gif", ".ts")


class ClipError(ValueError):
    """A picture, clip or track that cannot be used; the text names the file and what is wrong with it."""


def read_picture(path: Path) -> RgbArray:
    """(H, W, 3) uint8 RGB."""
    # imdecode, not imread: reading the file here gives a clear error for a missing file and allows non-ASCII names.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ClipError(f"{path.name} is not a picture")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def clip_rate(path: Path) -> Fraction:
    """Frames a second of a clip: a video file, or a folder of pictures in the order of their names."""
    if path.is_dir():
        return FOLDER_RATE
    with _opened(path) as container:
        stream = _video(container, path)
        return usual_rate(stream.average_rate, stream.guessed_rate)


def clip_length(path: Path) -> int:
    """Number of frames in a clip, counted from its packets; a damaged clip may decode to fewer."""
    if path.is_dir():
        return len(_pictures_in(path))
    with _opened(path) as container:
        return sum(1 for packet in container.demux(_video(container, path)) if packet.size)


def clip_pictures(path: Path) -> Iterator[RgbArray]:
    """Every frame, uncropped and upright, (H, W, 3) uint8 RGB. Raises ClipError, also if there is none."""
    if path.is_dir():
        if not (pictures := _pictures_in(path)):
            raise ClipError(f"{path.name} has no pictures")
        yield from map(read_picture, pictures)
        return
    count = 0
    with _opened(path) as container:
        for frame in container.decode(_video(container, path)):
            count += 1
            yield Orientation.of(frame).upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    if not count:
        raise ClipError(f"{path.name} has a video in which no picture can be decoded")


def is_clip(path: Path) -> bool:
    """Whether a path is a clip: a file with a video's extension, or a folder that contains pictures."""
    return bool(_pictures_in(path)) if path.is_dir() else path.suffix.lower() in CLIPS


def parse_square(text: str) -> CropSquare:
    """The square from a text `X,Y,SIZE` in whole pixels; raises ClipError."""
    try:
        x, y, size = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ClipError(f"a crop must be X,Y,SIZE in whole pixels, not {text!r}") from error
    return CropSquare(x, y, size)


def within(square: CropSquare, rgb: RgbArray) -> CropSquare:
    """The square, if it lies inside the picture; otherwise raises ClipError."""
    height, width = rgb.shape[:2]
    x, y, size = square.x, square.y, square.size
    if size < 1 or x < 0 or y < 0 or x + size > width or y + size > height:
        raise ClipError(f"crop {x:g},{y:g},{size:g} is not inside the picture of {width}x{height}")
    return square


class ClipWriter:
    """Writes RGB pictures of one size (even width and height) as H.264 in an mp4, labelled as synthetic.

    A context manager: it removes the file if an exception leaves the block. Raises OSError if the file cannot be
    written, ClipError if no picture was written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path = path
        self._rate = rate
        self._file = path.open("wb")
        self._container = av.open(self._file, "w", format="mp4")
        self._container.metadata["comment"] = "Synthetic: animated by Mien from a still picture"
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        self._stream.pix_fmt = "yuv420p"
        self.frames = 0

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        whole = error is None and self.frames > 0
        if whole:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        self._file.close()
        if not whole:
            self._path.unlink()
        if error is None and not whole:
            raise ClipError(f"{self._path.name} was not written: it would have no frames")

    def write(self, rgb: RgbArray) -> None:
        """Append one picture."""
        if not self.frames:
            self._stream.height, self._stream.width = rgb.shape[:2]
            self._stream.codec_context.colorspace = Colorspace.ITU601
            self._stream.codec_context.color_range = ColorRange.MPEG
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
        )
        frame.pts = self.frames
        frame.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self.frames += 1


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The clip's container. FFmpeg's errors inside the block become ClipErrors."""
    if path.is_file() and path.stat().st_size == 0:
        raise ClipError(f"{path.name} is empty")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ClipError(f"{path.name} is not a clip, or it is cut off: {error.strerror}") from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise ClipError(f"{path.name} is damaged or cut off: {error.strerror}") from error


def _video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # a song's cover is no video
            return stream
    raise ClipError(f"{path.name} has no video{', only sound' if container.streams.audio else ''}")


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
