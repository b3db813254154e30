"""The room behind the character: drawn sharp in linear light, then blurred with a disc, as by a lens."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Colour = tuple[float, float, float]

WIDTH, HEIGHT = 1280, 720
_MARGIN = 80  # drawn beyond the edges, for the blur to sample
_DISC_RADIUS = 21

_BOOKS: tuple[Colour, ...] = (
    (0.42, 0.10, 0.07),
    (0.06, 0.20, 0.24),
    (0.60, 0.42, 0.20),
    (0.10, 0.15, 0.28),
    (0.58, 0.50, 0.40),
    (0.30, 0.16, 0.10),
    (0.14, 0.28, 0.18),
    (0.62, 0.30, 0.16),
    (0.70, 0.64, 0.55),
)
_SHELVES = (60, 238, 416, 594)
_FAIRY_LIGHTS = (
    (948, 150),
    (1002, 196),
    (1120, 120),
    (1198, 186),
    (1246, 330),
    (1150, 352),
    (962, 520),
    (1098, 556),
    (1224, 520),
)


def backdrop(seed: int = 11) -> Picture:
    """(720, 1280, 3) linear light."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : HEIGHT + 2 * _MARGIN, 0 : WIDTH + 2 * _MARGIN].astype(np.float32) - _MARGIN
    room = _wall(x, y)
    _window(room, rng)
    _curtain(room)
    _shelves(room, rng)
    _plant(room, rng)
    _rectangle(room, 240, 560, 1000, 900, (0.24, 0.145, 0.085))  # a low cabinet
    _rectangle(room, 240, 553, 1000, 572, (0.40, 0.26, 0.16))
    _lamp(room, x, y)
    _print_on_the_wall(room)
    for lx, ly in _FAIRY_LIGHTS:
        _circle(room, lx, ly, 3.0, (13.0, 8.0, 3.6))

    blurred = cv2.GaussianBlur(cv2.filter2D(room, -1, _disc(), borderType=cv2.BORDER_REPLICATE), (0, 0), 4.0)
    inside = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    x, y, blurred = x[inside], y[inside], blurred[inside]
    veil = (
        0.6 * np.exp(-((x / 420) ** 2) - ((y - 160) / 420) ** 2)[..., None] * np.array([0.16, 0.15, 0.13], np.float32)
    )
    corners = 1 - 0.42 * np.clip(((x - 640) / 820) ** 2 + ((y - 340) / 560) ** 2, 0, 1)[..., None]
    return np.asarray(0.80 * (blurred + veil) * corners, np.float32)


def _disc() -> Picture:
    side = 2 * _DISC_RADIUS + 1
    disc = np.zeros((side, side), np.float32)
    cv2.circle(disc, (_DISC_RADIUS, _DISC_RADIUS), _DISC_RADIUS - 1, 1.0, -1, cv2.LINE_AA)
    disc = cv2.GaussianBlur(disc, (0, 0), 1.2)
    return np.asarray(disc / disc.sum(), np.float32)


def _rectangle(room: Picture, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    corners = [(int(x + _MARGIN), int(y + _MARGIN)) for x, y in ((left, top), (right, bottom))]
    cv2.rectangle(room, corners[0], corners[1], colour, -1, cv2.LINE_AA)


def _circle(room: Picture, x: float, y: float, radius: float, colour: Colour) -> None:
    cv2.circle(room, (int(x + _MARGIN), int(y + _MARGIN)), int(radius), colour, -1, cv2.LINE_AA)


def _darker(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _wall(x: Picture, y: Picture) -> Picture:
    """A warm wall, lit from the window at the left."""
    light = np.exp(-(((x - 60) / 620) ** 2) - ((y - 240) / 520) ** 2)
    floorwards = 1 - 0.25 * np.clip((y - 420) / 300, 0, 1)
    return np.asarray(
        ((0.30 + 0.85 * light) * floorwards)[..., None] * np.array([0.40, 0.335, 0.27], np.float32), np.float32
    )


def _window(room: Picture, rng: np.random.Generator) -> None:
    _rectangle(room, -90, -90, 232, 470, (0.30, 0.24, 0.19))
    for column in range(2):
        for row in range(3):
            left, top, bright = -80 + column * 158, -80 + row * 182, 1.9 - 0.25 * row
            _rectangle(room, left, top, left + 146, top + 170, (bright, 1.02 * bright, bright))
    for _ in range(26):  # trees outside
        x, y, bright = rng.uniform(-80, 220), rng.uniform(250, 460), rng.uniform(0.5, 1)
        _circle(room, x, y, rng.uniform(14, 42), _darker((0.50, 0.80, 0.42), bright))
    room[:] = cv2.GaussianBlur(room, (0, 0), 14)
    _rectangle(room, -90, 462, 250, 486, (0.55, 0.46, 0.37))


def _curtain(room: Picture) -> None:
    for fold in range(9):
        left = 232 + fold * 11
        _rectangle(
            room, left, -90, left + 12, 640, _darker((0.78, 0.70, 0.60), 0.62 + 0.22 * float(np.sin(fold * 1.9)))
        )


def _shelves(room: Picture, rng: np.random.Generator) -> None:
    wood = (0.23, 0.125, 0.065)
    _rectangle(room, 905, -90, 1400, 640, (0.135, 0.105, 0.085))
    _rectangle(room, 893, -90, 911, 660, wood)
    for shelf in _SHELVES:
        _rectangle(room, 900, shelf, 1400, shelf + 15, wood)
        left = 922.0
        while left < 1330:
            if rng.random() < 0.17:
                left += rng.uniform(18, 60)
                continue
            width, height = rng.uniform(14, 32), rng.uniform(88, 142)
            colour = _darker(_BOOKS[rng.integers(len(_BOOKS))], rng.uniform(0.55, 1.05))
            _rectangle(room, left, shelf - height, left + width - 2, shelf, colour)
            _rectangle(room, left, shelf - height * 0.8, left + width - 2, shelf - height * 0.74, _darker(colour, 1.5))
            left += width


def _plant(room: Picture, rng: np.random.Generator) -> None:
    for _ in range(60):
        angle, length, bright = rng.uniform(-2.9, -0.2), rng.uniform(50, 185), rng.uniform(0.4, 1.1)
        centre = (int(905 + np.cos(angle) * length * 0.62 + _MARGIN), int(470 + np.sin(angle) * length + _MARGIN))
        size = (int(rng.uniform(20, 40)), int(rng.uniform(7, 13)))
        turned = float(np.degrees(angle)) + rng.uniform(-30, 30)
        cv2.ellipse(room, centre, size, turned, 0, 360, _darker((0.09, 0.24, 0.10), bright), -1, cv2.LINE_AA)
    cv2.ellipse(room, (905 + _MARGIN, 510 + _MARGIN), (46, 62), 0, 0, 360, (0.52, 0.30, 0.20), -1, cv2.LINE_AA)


def _lamp(room: Picture, x: Picture, y: Picture) -> None:
    glow = np.exp(-((x - 1010) ** 2 + (y - 330) ** 2) / (2 * 135.0**2))[..., None]
    outline = np.array([[968, 290], [1052, 290], [1078, 372], [942, 372]], np.int32) + _MARGIN
    cv2.fillPoly(room, [outline], (3.4, 2.3, 1.25), cv2.LINE_AA)
    _rectangle(room, 1006, 372, 1014, 416, (0.3, 0.2, 0.1))
    room += 0.42 * glow * np.array([1.0, 0.62, 0.30], np.float32)


def _print_on_the_wall(room: Picture) -> None:
    _rectangle(room, 322, 100, 412, 238, (0.30, 0.20, 0.13))
    _rectangle(room, 329, 107, 405, 231, (0.52, 0.46, 0.38))
    _circle(room, 362, 158, 23, (0.62, 0.28, 0.16))
    _circle(room, 379, 184, 20, (0.10, 0.25, 0.27))
