"""Clips and pictures, read and written. No networks here."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from mien_encoder.crop import CropSquare
from mien_generator.face.contract import RgbArray

#: What a folder of pictures is taken to run at: VoxCeleb's rate, to which FOMM's preparation of it keeps.
FOLDER_RATE = Fraction(25)
PICTURES = (".png", ".jpg", ".jpeg")
CLIPS = (".mp4", ".mpg", ".mov", ".mkv", ".webm", ".avi", ".gif")


class ClipError(ValueError):
    """A picture, clip or track that cannot be used; the text names the file and what is wrong with it."""


def read_picture(path: Path) -> RgbArray:
    """(H, W, 3) uint8 RGB."""
    # imdecode, not imread: a name that is not ASCII, or a missing file, is then an error with a text.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ClipError(f"{path.name} is not a picture")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def clip_rate(path: Path) -> Fraction:
    """Frames a second of a clip: a video file, or a folder of pictures in the order of their names."""
    if path.is_dir():
        return FOLDER_RATE
    try:
        with av.open(str(path)) as container:
            return _video(container, path).average_rate or FOLDER_RATE
    except av.FFmpegError as error:
        raise ClipError(f"{path.name} is not a clip: {error.strerror}") from error


def clip_length(path: Path) -> int:
    """How many frames a clip has, by its packets: a damaged one may decode to fewer."""
    if path.is_dir():
        return len(_pictures_in(path))
    try:
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(_video(container, path)) if packet.size)
    except av.FFmpegError as error:
        raise ClipError(f"{path.name} is not a clip: {error.strerror}") from error


def clip_pictures(path: Path) -> Iterator[RgbArray]:
    """Every frame, whole, (H, W, 3) uint8 RGB."""
    if path.is_dir():
        yield from map(read_picture, _pictures_in(path))
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(_video(container, path)):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except av.FFmpegError as error:
        raise ClipError(f"{path.name} cannot be decoded: {error.strerror}") from error


def is_clip(path: Path) -> bool:
    """Whether a name in a folder is taken for a clip."""
    return bool(_pictures_in(path)) if path.is_dir() else path.suffix.lower() in CLIPS


def parse_square(text: str) -> CropSquare:
    """From `X,Y,SIZE` in whole pixels."""
    try:
        x, y, size = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ClipError(f"a crop is X,Y,SIZE in whole pixels, not {text!r}") from error
    return CropSquare(x, y, size)


def within(square: CropSquare, rgb: RgbArray) -> CropSquare:
    """The square, if it lies in the picture; raises ClipError if not."""
    height, width = rgb.shape[:2]
    x, y, size = square.x, square.y, square.size
    if size < 1 or x < 0 or y < 0 or x + size > width or y + size > height:
        raise ClipError(f"crop {x:g},{y:g},{size:g} does not lie in a picture of {width}x{height}")
    return square


class ClipWriter:
    """Writes RGB pictures of one even size as H.264 in an mp4, labelled as synthetic.

    A context manager: what it was writing when an exception came is removed. Raises OSError where nothing can be
    written, ClipError where nothing was.
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
            raise ClipError(f"{self._path.name} would hold no frame")

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


def _video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise ClipError(f"{path.name} holds no video")
    return container.streams.video[0]


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
