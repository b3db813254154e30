"""A picture animated offline, by a clip or a motion track, into an mp4: `mien model animate`. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from mien_generator.face.contract import AvatarFace, FaceGenerator, FaceRequest, P, RgbArray, as_rgb
from mien_generator.face.picture import scaled
from mien_shared.motion import PACKET_BYTES, Keypoints, MotionFlags, MotionPacket, MotionPacketError

_T = TypeVar("_T")

#: Motion tracks run at 30 fps.
TRACK_RATE = Fraction(30)
#: Frames whose keypoints are found, and whose faces are made, together.
_BATCH = 8


class AnimationError(ValueError):
    """A picture, clip or track that cannot be animated; the text names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a picture, in its pixels."""

    x: int
    y: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """From `X,Y,SIZE`."""
        try:
            x, y, size = (int(part) for part in text.split(","))
        except ValueError as error:
            raise AnimationError(f"a crop is X,Y,SIZE in whole pixels, not {text!r}") from error
        return cls(x, y, size)

    @classmethod
    def centre_of(cls, rgb: RgbArray) -> Crop:
        """The largest square about the picture's centre."""
        height, width = rgb.shape[:2]
        size = min(height, width)
        return cls((width - size) // 2, (height - size) // 2, size)

    def of(self, rgb: RgbArray) -> RgbArray:
        """The square itself; raises AnimationError where it does not lie in the picture."""
        height, width = rgb.shape[:2]
        if self.size < 1 or self.x < 0 or self.y < 0 or self.x + self.size > width or self.y + self.size > height:
            raise AnimationError(f"crop {self.x},{self.y},{self.size} does not lie in a picture of {width}x{height}")
        return rgb[self.y : self.y + self.size, self.x : self.x + self.size]


class KeypointFinder(Protocol):
    """Finds keypoints in square pictures, all of one size."""

    def find(self, pictures: list[RgbArray]) -> list[Keypoints]: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One frame to make: its keypoints in the avatar's crop, and the driving picture where there is one."""

    driving: Keypoints
    picture: RgbArray | None


def read_picture(path: Path) -> RgbArray:
    """(H, W, 3) uint8 RGB."""
    # imdecode, not imread: a name that is not ASCII, or a missing file, is then an error with a text.
    bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise AnimationError(f"{path.name} is not a picture")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def clip_rate(path: Path) -> Fraction:
    """Frames a second of a clip."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise AnimationError(f"{path.name} holds no video")
            return container.streams.video[0].average_rate or TRACK_RATE
    except av.FFmpegError as error:
        raise AnimationError(f"{path.name} is not a clip: {error.strerror}") from error


def clip_pictures(path: Path, size: int, crop: Crop | None) -> Iterator[RgbArray]:
    """Every frame's crop, by default the centre square, (size, size, 3) uint8 RGB."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                yield scaled((crop or Crop.centre_of(rgb)).of(rgb), size)
    except av.FFmpegError as error:
        raise AnimationError(f"{path.name} cannot be decoded: {error.strerror}") from error


def clip_steps(pictures: Iterable[RgbArray], finder: KeypointFinder, source: Keypoints) -> Iterator[Step]:
    """Motion relative to the clip's first frame, applied to the source (FOMM, section 3.3)."""
    initial: Keypoints | None = None
    for batch in _batches(pictures):
        for picture, keypoints in zip(batch, finder.find(batch), strict=True):
            initial = initial or keypoints
            yield Step(_relative(keypoints, initial).applied_to(source), picture)


def track_steps(path: Path, source: Keypoints) -> Iterator[Step]:
    """Motion of a track, applied to the source; absolute packets are taken relative to the first of them."""
    data = path.read_bytes()
    if not data or len(data) % PACKET_BYTES:
        raise AnimationError(f"{path.name} is not a motion track: {len(data)} bytes are no whole number of packets")
    initial: Keypoints | None = None
    for offset in range(0, len(data), PACKET_BYTES):
        try:
            packet = MotionPacket.unpack(data[offset : offset + PACKET_BYTES])
        except MotionPacketError as error:
            raise AnimationError(f"{path.name}, packet {offset // PACKET_BYTES}: {error}") from error
        motion = packet.keypoints
        if packet.flags & MotionFlags.ABSOLUTE:
            initial = motion if initial is None or packet.flags & MotionFlags.NEW_INITIAL_FRAME else initial
            motion = _relative(motion, initial)
        yield Step(motion.applied_to(source), None)


def animated(generator: FaceGenerator[P], avatar: AvatarFace, steps: Iterable[Step]) -> Iterator[tuple[Step, RgbArray]]:
    """Every step with the face that the generator made for it."""
    prepared = generator.prepare(avatar)
    for batch in _batches(steps):
        faces = generator.animate([FaceRequest(prepared, step.driving) for step in batch])
        yield from zip(batch, map(as_rgb, faces), strict=True)


class ClipWriter:
    """Writes RGB pictures of one even size as H.264 in an mp4, labelled as synthetic.

    A context manager: what it was writing when an exception came is removed. Raises OSError where nothing can be
    written, AnimationError where nothing was.
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
            raise AnimationError(f"{self._path.name} would hold no frame")

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


def _relative(keypoints: Keypoints, initial: Keypoints) -> Keypoints:
    try:
        return keypoints.relative_to(initial)
    except np.linalg.LinAlgError as error:
        raise AnimationError("the first driving frame has a Jacobian without an inverse: start at another") from error


def _batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
