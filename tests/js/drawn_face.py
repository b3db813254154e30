"""A face drawn with whole numbers, so that `drawn_face.js` draws the very same pixels: pictures for tests, in code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480

RgbArray = NDArray[np.uint8]
Colour = tuple[int, int, int]

SKIN, SHADE, HAIR, WHITE, IRIS, LIP, MOUTH = (
    (224, 178, 150), (196, 146, 120), (70, 48, 38), (244, 244, 240), (62, 84, 96), (176, 84, 84), (82, 30, 34),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pose:
    """What moves, in pixels: the face's centre, its height from crown to chin, eyelids and lips apart, a turn."""

    x: int = 320
    y: int = 240
    height: int = 200
    lids: int = 8
    lips: int = 3
    turn: int = 0


def draw(pose: Pose) -> RgbArray:
    """(480, 640, 3) RGB."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    picture = np.stack([90 + x // 16, 110 + y // 12, 140 + (x + y) // 24], axis=2)
    for cx, cy, a, b, colour in ellipses(pose):
        inside = ((x - cx) * b) ** 2 + ((y - cy) * a) ** 2 <= (a * b) ** 2
        picture[inside] = colour
    return picture.astype(np.uint8)


def ellipses(pose: Pose) -> list[tuple[int, int, int, int, Colour]]:
    """Centre, half axes and colour of each part, from back to front. `u` is a hundredth of the face's height."""

    def u(hundredths: int) -> int:
        return pose.height * hundredths // 100

    x, y, turn = pose.x, pose.y, pose.turn
    parts = [
        (x, y + u(78), u(62), u(30), (60, 70, 110)),  # shoulders
        (x, y + u(46), u(17), u(22), SHADE),  # neck
        (x, y - u(10), u(42), u(50), HAIR),
        (x, y, u(36), u(50), SKIN),
        (x, y - u(44), u(34), u(16), HAIR),  # fringe
    ]
    for side in (-1, 1):
        eye = x + turn + side * u(16)
        parts += [
            (eye, y - u(15), u(9), u(2), HAIR),  # brow
            (eye, y - u(4), u(8), max(pose.lids, 1), WHITE),
            (eye + turn // 2, y - u(4), min(u(4), max(pose.lids, 1)), max(pose.lids, 1), IRIS),
        ]
    parts += [
        (x + turn + turn // 2, y + u(11), u(6), u(3), SHADE),  # nose
        (x + turn, y + u(26), u(13), u(3) + pose.lips, LIP),
        (x + turn, y + u(26), u(10), max(pose.lips, 1), MOUTH),
    ]
    return parts


def speaking(frame: int) -> Pose:
    """Pose of a frame of a short performance at 30 frames a second: speech, blinks, a nod, a turn and a walk."""
    lips = (0, 2, 5, 8, 6, 3, 1, 4, 7, 3)[frame * 3 // 4 % 10]
    lids = (2, 1, 3)[frame % 40 - 30] if 30 <= frame % 40 < 33 else 8
    sway = abs(frame % 60 - 30) - 15
    return Pose(320 + sway // 2 + max(0, frame - 90) * 2, 236 + sway // 3, 200, lids, lips, sway // 4)
