"""Small clips as real devices and programs write them, made with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

#: The scene of `corners`: the colours of its top left, top right, bottom left and bottom right.
CORNERS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))

#: The display matrices (a, b, c, d) of a track: turned counterclockwise by so many degrees, mirrored or not.
MATRICES = {
    "none": (1, 0, 0, 1),
    "90": (0, -1, 1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down and mirrored": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}


def corners(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A picture with a colour in each quarter, (height, width, 3)."""
    rgb = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(CORNERS):
        y, x = divmod(number, 2)
        rgb[y * height // 2 : (y + 1) * height // 2, x * width // 2 : (x + 1) * width // 2] = colour
    return rgb


def write_clip(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    stamps: Sequence[int] | None = None,
    rate: int = 25,
    codec: str = "libx264",
) -> Path:
    """A clip with these pictures. stamps: when each is shown, in intervals of the rate."""
    with av.open(str(path), "w") as container:
        options = {"tune": "zerolatency", "crf": "10"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            for packet in stream.encode(frame):
                if stamps is not None:  # set here, because encoders refuse stamps that do not rise
                    shift = stamps[number] * int(1 / (rate * packet.time_base))
                    packet.pts = packet.dts = shift
                container.mux(packet)
        container.mux(stream.encode())
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into an mp4's track header (ISO/IEC 14496-12, section 8.3.2)."""
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def stored_for(matrix: tuple[int, int, int, int], shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture that a device stores so that a player with this matrix shows `shown`.

    Follows the matrix point by point, so that it shares nothing with what is tested.
    """
    a, b, c, d = matrix
    height, width = shown.shape[:2] if a else shown.shape[1::-1]
    stored = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            to_x, to_y = a * x + c * y, b * x + d * y
            stored[y, x] = shown[to_y % shown.shape[0], to_x % shown.shape[1]]
    return stored


def write_sound(path: Path, codec: str, seconds: float = 0.5) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        for number in range(round(seconds * 8000 / 1024)):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 8000, number * 1024, Fraction(1, 8000)
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def blanked(path: Path) -> Path:
    """Overwrite the pictures of an mp4 with zeros; its index stays."""
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return path
