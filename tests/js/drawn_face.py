"""A face drawn with whole numbers, so that `drawn_face.mjs` draws the very same pixels: pictures for tests, in code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480

RgbArray = NDArray[np.uint8]
Colour = tuple[int, int, int]
#: Centre, half axes and colour.
Ellipse = tuple[int, int, int, int, Colour]

SKIN, SHADE, HAIR, SHIRT = (224, 178, 150), (196, 146, 120), (70, 48, 38), (60, 70, 110)
WHITE, IRIS, LIP, MOUTH = (244, 244, 240), (62, 84, 96), (176, 84, 84), (82, 30, 34)


@dataclass(frozen=True, slots=True)
class Pose:
    """What moves, in pixels: centre and height of the face, half the height of eyes and mouth, a turn to the right."""

    x: int = 320
    y: int = 240
    height: int = 200
    lids: int = 8
    lips: int = 3
    turn: int = 0


def draw(pose: Pose | None) -> RgbArray:
    """(480, 640, 3) RGB; without a pose only the wall behind the face."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([90 + x // 16, 110 + y // 12, 140 + (x + y) // 24], axis=2).astype(np.uint8)
    for centre_x, centre_y, a, b, colour in [] if pose is None else ellipses(pose):
        rows = slice(max(centre_y - b, 0), max(centre_y + b + 1, 0))
        columns = slice(max(centre_x - a, 0), max(centre_x + a + 1, 0))
        across, down = x[rows, columns] - centre_x, y[rows, columns] - centre_y
        picture[rows, columns][(across * b) ** 2 + (down * a) ** 2 <= (a * b) ** 2] = colour
    return picture


def ellipses(pose: Pose) -> list[Ellipse]:
    """The parts of the picture, from back to front."""

    def u(hundredths: int) -> int:
        return pose.height * hundredths // 100

    x, y, turn, lids = pose.x, pose.y, pose.turn, max(pose.lids, 1)
    parts = [
        (x, y + u(78), u(62), u(30), SHIRT),
        (x, y + u(46), u(17), u(22), SHADE),  # neck
        (x, y - u(10), u(42), u(50), HAIR),
        (x, y, u(36), u(50), SKIN),
        (x, y - u(44), u(34), u(16), HAIR),  # fringe
        (x + turn + turn // 2, y + u(11), u(6), u(3), SHADE),  # nose
        (x + turn, y + u(26), u(13), u(3) + pose.lips, LIP),
        (x + turn, y + u(26), u(10), max(pose.lips, 1), MOUTH),
    ]
    for eye in (x + turn - u(16), x + turn + u(16)):
        parts += [
            (eye, y - u(15), u(9), u(2), HAIR),  # brow
            (eye, y - u(4), u(8), lids, WHITE),
            (eye + turn // 2, y - u(4), min(u(4), lids), lids, IRIS),
        ]
    return parts


def speaking(frame: int) -> Pose:
    """Pose of a frame of a performance at 30 frames a second: speech, blinks, turns, and from frame 90 on a walk."""
    lips = (0, 2, 5, 8, 6, 3, 1, 4, 7, 3)[frame * 3 // 4 % 10]
    blink = frame % 40
    lids = (2, 1, 3)[blink - 30] if 30 <= blink < 33 else 8
    sway = abs(frame % 60 - 30) - 15
    walk = max(0, frame - 90) * 2
    return Pose(320 + sway // 2 + walk, 236 + sway // 3, 200, lids, lips, sway // 4)
