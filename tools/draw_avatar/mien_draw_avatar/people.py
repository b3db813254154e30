"""The people of the gallery: the sculpture with other hair, brows, beard, proportions, colours and rooms.

The sculpture is traced once a person, with the share of each material in a pixel, and its colours are replaced in the
traced light. The bundled avatar itself (`mien`) is drawn by `__main__.py` and keeps its own colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import prange
from numpy.typing import NDArray

from mien_draw_avatar.backdrop import HEIGHT, WIDTH, backdrop
from mien_draw_avatar.groom import make_groom
from mien_draw_avatar.materials import unit
from mien_draw_avatar.render import (
    CENTRE_X,
    CENTRE_Y,
    DISTANCE,
    FOCUS_Z,
    LOOK_Y,
    PIXELS_PER_UNIT,
    developed,
    follow,
    shade,
)
from mien_draw_avatar.sculpture import (
    SKIN,
    Groom,
    Material,
    Pose,
    bell,
    compiled,
    compiled_parallel,
    smooth_step,
    to_head,
)

Picture = NDArray[np.float32]
Colour = tuple[float, float, float]

#: The sculpture's own linear colours, which are replaced.
_SKIN, _HAIR, _JACKET, _SHIRT = (0.70, 0.415, 0.300), (0.120, 0.050, 0.025), (0.030, 0.140, 0.155), (0.66, 0.60, 0.52)
#: Behind the materials: skin where a beard grows.
_BEARD = len(Material)
#: The point about which a face is made wider or longer: the middle of the face crop.
_MIDDLE = (640.0, 286.0)


@dataclass(frozen=True, slots=True)
class Person:
    """One person. Colours are sRGB, 0 to 255.

    length: of the hair, 1 for the sculpture's bob. nape: how far it reaches down behind. volume: thickness of locks.
    brow: weight of the brows, and how much higher they are. beard: 0 none, 1 full. wide, long: the face's proportions.
    seed: of the hair's locks and of the room. mirrored: parting and light come from the other side.
    """

    name: str
    skin: Colour
    hair: Colour
    iris: Colour
    jacket: Colour
    shirt: Colour
    length: float
    nape: float
    volume: float = 1.0
    brow: tuple[float, float] = (1.0, 0.0)
    beard: float = 0.0
    wide: float = 1.0
    long: float = 1.0
    seed: int = 11
    mirrored: bool = False
    room: Colour = (255, 255, 255)


PEOPLE = {
    "noor": Person(
        "Noor", (112, 74, 56), (24, 19, 18), (70, 44, 28), (138, 66, 62), (226, 208, 180),
        length=1.75, nape=1.15, volume=1.12, brow=(1.15, 0.01), wide=0.97, long=1.03, seed=23, mirrored=True,
        room=(255, 236, 222),
    ),
    "kenji": Person(
        "Kenji", (208, 166, 140), (27, 25, 24), (62, 42, 30), (60, 68, 92), (220, 222, 224),
        length=0.12, nape=0.34, volume=0.96, brow=(1.45, -0.012), wide=1.03, long=1.0, seed=37,
        room=(222, 234, 252),
    ),
    "mateo": Person(
        "Mateo", (188, 140, 110), (54, 38, 29), (96, 102, 84), (88, 94, 70), (72, 73, 76),
        length=0.16, nape=0.36, volume=1.05, brow=(1.5, -0.006), beard=0.85, wide=1.01, long=1.05, seed=51,
        mirrored=True, room=(236, 246, 232),
    ),
    "ingrid": Person(
        "Ingrid", (222, 178, 160), (188, 186, 184), (112, 122, 130), (96, 84, 108), (232, 228, 220),
        length=0.62, nape=0.56, volume=0.92, brow=(0.75, 0.008), wide=0.95, long=1.02, seed=64,
        room=(244, 234, 248),
    ),
}  # fmt: skip


def picture_of(person: Person, samples: int) -> NDArray[np.uint8]:
    """(720, 1280, 3) RGB."""
    light, shares = _traced(samples, Pose(), groom_of(person))
    if person.mirrored:
        light, shares = light[:, ::-1], shares[:, ::-1]
    light, shares = _stretched(light, person), _stretched(shares, person)
    shares = np.clip(shares, 0, 1)
    covered = shares[..., :_BEARD].sum(axis=2, keepdims=True)
    tinted = light * (shares[..., :_BEARD] @ _factors(person) + (1 - covered))
    tinted *= 1 + shares[..., _BEARD:] * person.beard * (_linear(person.hair) / _linear(person.skin) * 0.9 - 1)
    brightest = tinted.max(axis=2, keepdims=True)
    vivid = np.clip(1.6 * (1 - tinted.min(axis=2, keepdims=True) / (brightest + 1e-4)) - 0.5, 0, 1)
    tinted *= 1 + shares[..., [Material.EYE]] * vivid * (_linear(person.iris) / _linear((122, 74, 30)) - 1)
    room = backdrop(person.seed) * _linear(person.room)
    room = room[:, ::-1] if person.mirrored else room
    return developed((tinted + room * (1 - covered)).astype(np.float32))


def stretched_keypoints(points: NDArray[np.float64], person: Person) -> NDArray[np.float64]:
    """The sculpture's keypoints (10, 2) at rest, in the crop: made wider and longer as the picture is."""
    return points * (person.wide, person.long)


def groom_of(person: Person) -> Groom:
    """The sculpture's hair, shortened or lengthened below the temples, and its brows."""
    groom = make_groom(person.seed)
    strands, brow = groom.strands.copy(), groom.brow.copy()
    ends = strands[..., 1] < 0.1
    strands[..., 1] = np.where(ends, 0.1 + (strands[..., 1] - 0.1) * person.length, strands[..., 1])
    strands[..., 3] *= person.volume
    brow[:, 1] += person.brow[1]
    brow[:, 3] *= person.brow[0]
    points, radii = strands[..., :3], strands[..., 3]
    centres = (points.min(axis=1) + points.max(axis=1)) / 2
    reach = (np.linalg.norm(points - centres[:, None], axis=2) + radii).max(axis=1)
    return Groom(strands, np.column_stack([centres, reach]), brow, person.nape)


def _linear(colour: Colour) -> NDArray[np.float64]:
    return np.asarray(np.power(np.asarray(colour) / 255, 2.2))


def _factors(person: Person) -> Picture:
    """(9, 3) the factor for each material's light."""
    factors = np.ones((_BEARD, 3), np.float32)
    factors[Material.SKIN] = _linear(person.skin) / _SKIN
    factors[Material.HAIR] = _linear(person.hair) / _HAIR
    factors[Material.BROW] = np.clip(factors[Material.HAIR], 0.25, 2.2)
    factors[Material.JACKET] = _linear(person.jacket) / _JACKET
    factors[Material.SHIRT] = _linear(person.shirt) / _SHIRT
    return factors


def _stretched(layers: Picture, person: Person) -> Picture:
    """The layers (720, 1280, n), wider and longer about the middle of the face."""
    x, y = _MIDDLE
    matrix = np.array([[person.wide, 0, x * (1 - person.wide)], [0, person.long, y * (1 - person.long)]])
    moved = [
        cv2.warpAffine(np.ascontiguousarray(layer), matrix, (WIDTH, HEIGHT)) for layer in np.moveaxis(layers, 2, 0)
    ]
    return np.stack(moved, axis=2)


@compiled
def _beard_at(x: float, y: float, z: float) -> float:
    """How thick a beard grows at a point of the skin, in head axes: 0 to 1."""
    if z < 0.1:
        return 0.0
    low = smooth_step(0.30, 0.46, -y - 0.10 * min(abs(x), 0.5) + 0.22 * smooth_step(0.30, 0.60, abs(x)))
    mouth = bell(x, 0.30) * bell(y + 0.50, 0.085)
    return low * (1 - min(1.0, 1.35 * mouth)) * smooth_step(-1.02, -0.90, y)


@compiled_parallel
def _traced(samples: int, pose: Pose, groom: Groom) -> tuple[Picture, Picture]:
    """Light (720, 1280, 3), and each material's share of a pixel with the beard's behind them (720, 1280, 10)."""
    light, shares = np.zeros((HEIGHT, WIDTH, 3), np.float32), np.zeros((HEIGHT, WIDTH, 10), np.float32)
    weight = np.float32(1.0 / (samples * samples))
    for row in prange(HEIGHT):
        for column in range(WIDTH):
            for s in range(samples * samples):
                px = column + (s % samples + 0.5) / samples
                py = row + (s // samples + 0.5) / samples
                ray = unit(((px - CENTRE_X) / PIXELS_PER_UNIT, (CENTRE_Y - py) / PIXELS_PER_UNIT, FOCUS_Z - DISTANCE))
                t, material, clump = follow(ray, pose, groom)
                if t > 0:
                    at = (ray[0] * t, LOOK_Y + ray[1] * t, DISTANCE + ray[2] * t)
                    lit = shade(at, ray, material, clump, pose, groom)
                    for channel in range(3):
                        light[row, column, channel] += weight * min(lit[channel], 4.0)
                    shares[row, column, material] += weight
                    if material == SKIN:
                        x, y, z = to_head(at[0], at[1], at[2], pose)
                        shares[row, column, 9] += weight * _beard_at(x, y, z)
    return light, shares
