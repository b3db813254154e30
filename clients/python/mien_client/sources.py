"""Reads clips and cameras with PyAV. Everything here blocks: pictures.py calls it in a thread."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mien_shared.media.pace import Pace, usual_rate

#: Without a size macOS takes the largest, and without a rate one that its cameras refuse (29.97).
_CAMERA_OPTIONS = ({"framerate": "30", "video_size": "640x480"}, {"framerate": "30"})


class SourceError(ValueError):
    """A clip or a camera that cannot be used. The text names it and says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CameraSystem:
    """How FFmpeg reads cameras on an operating system.

    format: the name of its input format. device: the device that is used by default. hint: what to check if the device
    cannot be opened.
    """

    format: str
    device: str
    hint: str


_CAMERA_SYSTEMS = {
    "linux": CameraSystem("v4l2", "/dev/video0", "`ls /dev/video*` lists the cameras"),
    "darwin": CameraSystem(
        "avfoundation", "default", "allow the terminal to use it in System Settings, Privacy & Security, Camera"
    ),
}


def read_clip(source: str, tell: Callable[[str], None]) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """Each picture of a clip with its time in seconds since the first picture.

    tell: called with a sentence if its time stamps are wrong. Raises SourceError; for a damaged clip at its end, after
    the pictures that could be decoded.
    """
    with closing(_open_clip(source)) as container:
        stream = _video(container, source)
        rate = usual_rate(stream.average_rate, stream.guessed_rate)
        pace = Pace(rate, lambda text: tell(f"{source}: {text}"))
        count = damaged = 0
        try:
            for packet in container.demux(stream):
                frames = _decoded(packet)
                damaged += frames is None and count > 0  # before the first keyframe nothing can be decoded
                for frame in frames or ():
                    count += 1
                    yield pace.at_s(frame.time), frame
        except av.FFmpegError as error:
            raise SourceError(f"{source} is damaged or cut off: {error.strerror}") from error
    if not count:
        raise SourceError(f"{source} has a video in which no picture can be decoded")
    if damaged:
        raise SourceError(f"{source} is damaged or cut off: {damaged} of its pictures could not be decoded")


def _open_clip(source: str) -> InputContainer:
    path = Path(source)
    if path.is_dir():
        raise SourceError(f"{source} is a folder, not a clip")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{source} is empty")
    try:
        return av.open(source)
    except av.InvalidDataError as error:
        raise SourceError(f"{source} is not a clip, or it is cut off: {error.strerror}") from error
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error


def _video(container: InputContainer, source: str) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # a song's cover is no video
            return stream
    raise SourceError(f"{source} has no video{', only sound' if container.streams.audio else ''}")


def _decoded(packet: av.Packet[VideoStream]) -> list[av.VideoFrame] | None:
    """The pictures that a packet completes; None if it is damaged."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.FFmpegError:
        return None


def read_camera(device: str | None = None, system: str = sys.platform) -> Generator[av.VideoFrame | None, None, None]:
    """A camera's pictures as they arrive; None when there is none yet. Never ends; raises SourceError.

    device: None means the system's default camera. system: a value of sys.platform.
    """
    if system not in _CAMERA_SYSTEMS:
        raise SourceError(f"cameras can be read on Linux and macOS, not on {system}: send a clip instead")
    cameras = _CAMERA_SYSTEMS[system]
    device = device or cameras.device
    with closing(_open_camera(device, cameras)) as container:
        try:
            yield from _camera_pictures(container)
        except av.FFmpegError as error:
            raise SourceError(f"the camera {device} stopped: {error.strerror}") from error
    raise SourceError(f"the camera {device} stopped")


def _camera_pictures(container: InputContainer) -> Iterator[av.VideoFrame | None]:
    while True:
        try:
            for packet in container.demux(video=0):
                yield from _decoded(packet) or ()  # a camera's damaged picture is skipped
            return
        except av.BlockingIOError:  # AVFoundation does not wait for the next picture
            yield None


def _open_camera(device: str, cameras: CameraSystem) -> InputContainer:
    *others, last = _CAMERA_OPTIONS
    try:
        for options in others:
            try:
                return av.open(device, format=cameras.format, options=options)
            except av.FFmpegError as error:
                if error.errno not in {errno.EIO, errno.EINVAL}:  # it may not have this size
                    raise
        return av.open(device, format=cameras.format, options=last)
    except FileNotFoundError as error:
        raise SourceError(f"there is no camera {device}: {cameras.hint}") from error
    except (av.FFmpegError, OSError) as error:
        raise SourceError(_camera_fault(device, error, cameras)) from error
    except ValueError as error:  # PyAV does not know the format
        raise SourceError(f"this PyAV cannot read cameras: it was built without {cameras.format}") from error


def _camera_fault(device: str, error: OSError | av.FFmpegError, cameras: CameraSystem) -> str:
    if error.errno == errno.EBUSY:
        return f"the camera {device} is used by another program: close that program"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"you may not use the camera {device}: permission denied"
    return f"the camera {device} cannot be opened ({error.strerror}): {cameras.hint}"
