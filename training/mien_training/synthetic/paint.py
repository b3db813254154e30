"""Procedural textures of a synthetic head: skin, eyes, hair, cloth. All are sRGB (H, W, 3) uint8, row 0 at v = 1."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_training.synthetic.head import FACE, Array, HeadModel

Texture = NDArray[np.uint8]
Colour = NDArray[np.float64]
Plane = NDArray[np.float32]

SKIN_SIDE, EYE_SIDE, HAIR_SIDE, CLOTH_SIDE = 1024, 256, 512, 256

#: Skin colours in daylight, from light to dark.
_SKINS = np.array(
    [
        (244, 211, 192),
        (234, 192, 167),
        (219, 170, 139),
        (196, 143, 109),
        (161, 111, 80),
        (118, 78, 56),
        (82, 54, 40),
    ],
    np.float64,
)
_HAIRS = np.array(
    [
        (22, 19, 18),
        (38, 28, 23),
        (62, 42, 30),
        (92, 62, 40),
        (140, 100, 62),
        (190, 152, 100),
        (214, 186, 140),
        (140, 66, 34),
        (128, 124, 120),
        (205, 203, 200),
    ],
    np.float64,
)
_IRISES = np.array(
    [(70, 42, 24), (92, 58, 32), (48, 30, 20), (110, 128, 140), (84, 118, 150), (96, 112, 76), (120, 92, 52)],
    np.float64,
)

_LEFT_BROW, _RIGHT_BROW = list(range(17, 22)), list(range(22, 27))
_LIPS, _INSIDE = list(range(48, 60)), list(range(60, 68))
_EYES = (list(range(36, 42)), list(range(42, 48)))


@dataclass(frozen=True)
class Complexion:
    """A person's colours, sRGB in [0, 255], and the strength of freckles, stubble, lashes and blush."""

    skin: Colour
    lips: Colour
    hair: Colour
    brows: Colour
    iris: Colour
    freckles: float
    stubble: float
    lashes: float
    blush: float


def complexion(rng: np.random.Generator) -> Complexion:
    """Random colours of a person. Dark skin mostly has dark hair and dark eyes."""
    darkness = rng.uniform(0, len(_SKINS) - 1)
    low = int(min(darkness, len(_SKINS) - 2))
    skin = _SKINS[low] + (darkness - low) * (_SKINS[low + 1] - _SKINS[low])
    skin = np.clip(skin * rng.uniform(0.93, 1.05) + rng.normal(0, 4, 3), 20, 250)
    hair = _HAIRS[rng.integers(3)] if darkness > 3.2 and rng.random() < 0.85 else _HAIRS[rng.integers(len(_HAIRS))]
    hair = np.clip(hair + rng.normal(0, 5, 3), 8, 235)
    painted = rng.random() < 0.2
    red = np.array([rng.uniform(140, 200), rng.uniform(35, 80), rng.uniform(50, 90)])
    natural = skin * (0.86, 0.66, 0.66) if darkness < 4 else skin * (0.95, 0.8, 0.82)
    lips = skin + rng.uniform(0.6, 0.95) * (red - skin) if painted else natural * rng.uniform(0.88, 1.08)
    iris = _IRISES[rng.integers(3)] if darkness > 3 and rng.random() < 0.9 else _IRISES[rng.integers(len(_IRISES))]
    brows = np.minimum(hair * rng.uniform(0.55, 0.9), 120)
    return Complexion(
        skin=skin,
        lips=np.clip(lips, 0, 255),
        hair=hair,
        brows=brows,
        iris=iris * rng.uniform(0.8, 1.2),
        freckles=float(rng.uniform(0.3, 1) if rng.random() < 0.25 and darkness < 3 else 0),
        stubble=float(rng.uniform(0.3, 1) if rng.random() < 0.3 else 0),
        lashes=float(rng.uniform(0.3, 0.95)),
        blush=float(rng.uniform(0, 0.5) * (1 if darkness < 3.5 else 0.3)),
    )


def noise_plane(rng: np.random.Generator, side: int, coarsest: int, octaves: int = 3) -> Plane:
    """(side, side) smooth noise with mean 0 and standard deviation 1; coarsest: lumps per side in the first octave."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        lumps = coarsest * 2**octave
        grid = rng.normal(0, 1, (lumps, lumps)).astype(np.float32)
        total += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def face_points(model: HeadModel) -> Array:
    """(68, 2) pixels of the iBUG landmarks in the face's texture."""
    face = model.parts[FACE].triangles
    of_vertex = np.zeros(len(model.neutral), np.int64)
    of_vertex[model.split[face.ravel()]] = face.ravel()
    uv = model.uv[of_vertex[model.landmarks68]]
    return np.asarray(uv * (SKIN_SIDE, -SKIN_SIDE) + (0, SKIN_SIDE), np.float32)


def skin(rng: np.random.Generator, model: HeadModel, colours: Complexion) -> Texture:
    """The face's texture: tone, blush, brows, lips, the mouth's inside, freckles, stubble."""
    side, points = SKIN_SIDE, face_points(model)
    picture = np.tile(colours.skin.astype(np.float32), (side, side, 1))
    picture *= 1 + 0.018 * noise_plane(rng, side, 12)[..., None]
    picture *= 1 + 0.022 * cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 1.2)[..., None]
    picture += 2.2 * noise_plane(rng, side, 6)[..., None] * np.array([0.3, 1.0, 1.0], np.float32)
    _blush(picture, points, colours.blush)
    if colours.freckles:
        _freckles(rng, picture, points, colours)
    if colours.stubble:
        _stubble(rng, picture, points, colours)
    _sockets(picture, points, colours)
    _mouth(rng, picture, points, colours)
    form = (rng.uniform(9, 24), rng.uniform(0.6, 1.0))
    raised = np.array([0, rng.normal(0, 6)]) + np.outer(np.linspace(-1, 1, 5), [0, rng.normal(0, 4)])
    for brow, outwards in ((_LEFT_BROW, -1.0), (_RIGHT_BROW, 1.0)):
        line = points[brow] + (raised if outwards > 0 else raised[::-1])
        _brow(rng, picture, line, outwards, colours, form)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _filled(points: Array, blur: float, side: int = SKIN_SIDE) -> Plane:
    mask = np.zeros((side, side), np.float32)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur) if blur else mask, np.float32)


def _mix(picture: Plane, colour: Colour | tuple[float, float, float], mask: Plane) -> None:
    picture += mask[..., None] * (np.asarray(colour, np.float32) - picture)


def _disc(centre: Array, across: float, up: float, softness: float) -> Plane:
    y, x = np.mgrid[0:SKIN_SIDE, 0:SKIN_SIDE].astype(np.float32)
    r = np.sqrt(((x - centre[0]) / across) ** 2 + ((y - centre[1]) / up) ** 2)
    return np.asarray(1 / (1 + np.exp((r - 1) / softness)), np.float32)


def _blush(picture: Plane, points: Array, amount: float) -> None:
    cheeks = [(points[eye].mean(axis=0) + points[corner]) / 2 for eye, corner in ((_EYES[0], 48), (_EYES[1], 54))]
    red = np.array([1.02, 0.82, 0.82], np.float32)
    for centre, size in [*((cheek, 70.0) for cheek in cheeks), (points[33], 45.0)]:
        mask = amount * _disc(centre, size, size * 0.8, 0.3)
        picture *= 1 + mask[..., None] * (red - 1)


def _freckles(rng: np.random.Generator, picture: Plane, points: Array, colours: Complexion) -> None:
    spots = np.zeros(picture.shape[:2], np.float32)
    centre, spread = points[29], np.array([130, 70])
    for x, y in centre + rng.normal(0, 1, (int(260 * colours.freckles), 2)) * spread:
        cv2.circle(spots, (int(x * 8), int(y * 8)), int(rng.uniform(8, 22)), float(rng.uniform(0.2, 0.6)), -1, 16, 3)
    _mix(picture, colours.skin * (0.72, 0.58, 0.48), cv2.GaussianBlur(spots, (0, 0), 1.0))


def _stubble(rng: np.random.Generator, picture: Plane, points: Array, colours: Complexion) -> None:
    jaw = points[2:15]
    upper = np.array([points[54] + (55, -25), points[35] + (8, 12), points[31] + (-8, 12), points[48] + (-55, -25)])
    mask = _filled(np.concatenate([jaw + np.array((0, 40)), upper]), 30) * (1 - _filled(points[_LIPS], 4))
    grain = 0.65 + 0.35 * np.clip(noise_plane(rng, SKIN_SIDE, 256, 2), -1, 1)
    full = 0.75 * colours.stubble if colours.stubble > 0.7 else 0.45 * colours.stubble
    _mix(
        picture,
        0.6 * colours.brows + 0.25 * colours.skin * (0.7, 0.75, 0.8),
        np.asarray(full * mask * grain, np.float32),
    )


def _sockets(picture: Plane, points: Array, colours: Complexion) -> None:
    for eye in _EYES:
        outline = points[eye]
        centre = outline.mean(axis=0)
        shade = 0.22 * _disc(centre + np.array((0, 4)), 75, 42, 0.25)
        picture *= 1 - shade[..., None] * np.array([0.5, 0.8, 0.75], np.float32)
        rim = _filled(centre + (outline - centre) * 1.04, 2.5)
        _mix(picture, colours.skin * (0.62, 0.45, 0.42), 0.85 * rim)
        lashes = np.zeros(picture.shape[:2], np.float32)  # along the upper lid: the first four points of the outline
        upper = np.round((outline[:4] + np.array((0, -1.5))) * 8).astype(np.int32)
        cv2.polylines(lashes, [upper], False, 1.0, 6, cv2.LINE_AA, 3)
        lower = np.round((outline[[3, 4, 5, 0]] + (0, 1.0)) * 8).astype(np.int32)
        cv2.polylines(lashes, [lower], False, 0.45, 4, cv2.LINE_AA, 3)
        _mix(picture, np.minimum(colours.brows * 0.5, 45), colours.lashes * cv2.GaussianBlur(lashes, (0, 0), 1.2))


def _mouth(rng: np.random.Generator, picture: Plane, points: Array, colours: Complexion) -> None:
    outline = points[_LIPS]
    centre = outline.mean(axis=0)
    lips = _filled(centre + (outline - centre) * 1.02, 3.0)
    creases = cv2.resize(rng.normal(0, 1, (4, 160)).astype(np.float32), (SKIN_SIDE, SKIN_SIDE))
    tone = np.clip(1 + 0.03 * creases, 0.8, 1.2)[..., None] * colours.lips.astype(np.float32)
    picture += lips[..., None] * (tone - picture)
    inside = points[_INSIDE]
    middle = inside.mean(axis=0)
    # The wet edge of the lips, then the inside of the cheeks, in increasingly dark steps.
    _mix(picture, colours.lips * (0.8, 0.6, 0.6), _filled(middle + (inside - middle) * 0.98, 3.0))
    _mix(picture, (70, 22, 22), _filled(middle + (inside - middle) * 0.82, 5.0))
    _mix(picture, (28, 8, 8), _filled(middle + (inside - middle) * 0.6, 5.0))


def _brow(
    rng: np.random.Generator,
    picture: Plane,
    line: Array,
    outwards: float,
    colours: Complexion,
    form: tuple[float, float],
) -> None:
    """Draw one brow in strokes along its landmarks (5, 2). form: thickness in pixels, and strength."""
    thick, strength = form
    ordered = line if outwards > 0 else line[::-1]  # from the nose outwards
    at = np.linspace(0, 1, len(ordered))
    strokes = np.zeros(picture.shape[:2], np.float32)
    for _ in range(420):
        share = rng.uniform(-0.04, 1.02)
        x, y = (np.interp(share, at, ordered[:, axis]) for axis in range(2))
        half = thick * (1 - 0.55 * max(share, 0)) * min(1.0, 0.6 + 3 * max(share, 0))
        y += 4 + rng.uniform(-half, half) * 0.6
        length, lift = rng.uniform(9, 17), np.interp(share, [0, 0.3, 1], [1.1, 0.45, -0.25])
        tip = (x + outwards * length * np.cos(lift), y - length * np.sin(lift))
        ends = [(int(px * 8), int(py * 8)) for px, py in ((x, y), tip)]
        cv2.line(strokes, ends[0], ends[1], float(rng.uniform(0.5, 1)), 2, cv2.LINE_AA, 3)
    under = cv2.GaussianBlur(strokes, (0, 0), 5)
    _mix(picture, colours.brows, np.clip(strength * np.maximum(0.9 * strokes, 1.1 * under), 0, 1))


def eye(rng: np.random.Generator, iris_radius: float, colours: Complexion) -> Texture:
    """An eyeball's texture. iris_radius: in units of the texture's side; the iris's centre is at (0.5, 0.5)."""
    side = EYE_SIDE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    dx, dy = (x + 0.5) / side - 0.5, (y + 0.5) / side - 0.5
    q, angle = np.sqrt(dx * dx + dy * dy) / iris_radius, np.arctan2(dy, dx)
    picture = np.tile(np.array([232, 226, 220], np.float32), (side, side, 1))
    picture -= np.clip(q - 1.6, 0, 1.2)[..., None] * np.array([8, 30, 28], np.float32)
    fibres = cv2.resize(rng.normal(0, 1, (1, 90)).astype(np.float32), (720, 1), interpolation=cv2.INTER_CUBIC)[0]
    grain = fibres[((angle + np.pi) / (2 * np.pi) * 719).astype(np.int32)]
    tone = (0.85 + 0.13 * grain + 0.4 * np.exp(-(((q - 0.5) / 0.18) ** 2)))[..., None]
    iris = np.asarray(tone * colours.iris, np.float32)
    iris *= (1 - 0.6 * np.clip((q - 0.78) / 0.22, 0, 1))[..., None]
    pupil = rng.uniform(0.3, 0.45)
    iris *= np.clip((q - pupil) / 0.06, 0.06, 1)[..., None]
    picture += np.clip((1.04 - q) / 0.1, 0, 1)[..., None] * (iris - picture)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def hair(rng: np.random.Generator, colour: Colour, curl: float) -> NDArray[np.uint8]:
    """(H, W, 4) strands along the texture's height; alpha is the noise that frays edges.

    curl: from 0, straight, to 1, woolly.
    """
    side = HAIR_SIDE
    fine, tall = side, max(4, int(6 + 200 * curl))
    strands = cv2.resize(rng.normal(0, 1, (tall, fine)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    locks = cv2.resize(
        rng.normal(0, 1, (max(3, tall // 3), 48)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    shade = np.clip(1 + 0.24 * strands + 0.22 * locks, 0.3, 1.9)[..., None]
    fray = np.clip(128 + 45 * locks + 40 * strands, 0, 255)[..., None]
    return np.asarray(np.concatenate([np.clip(shade * colour, 0, 255), fray], axis=2), np.uint8)


def cloth(rng: np.random.Generator) -> Texture:
    """A plain, striped or checked cloth."""
    side = CLOTH_SIDE
    base, other = rng.uniform(15, 240, 3), rng.uniform(15, 240, 3)
    if rng.random() < 0.5:
        base = np.full(3, base.mean()) + rng.normal(0, 12, 3)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    pattern = np.zeros((side, side), np.float32)
    kind, lines = rng.random(), rng.integers(4, 16)
    if kind < 0.2:
        pattern = (np.sin(2 * np.pi * lines * y) > 0).astype(np.float32)
    elif kind < 0.3:
        pattern = 0.5 * (np.sin(2 * np.pi * lines * y) > 0.4) + 0.5 * (np.sin(2 * np.pi * lines * x) > 0.4)
    picture = base + pattern[..., None] * 0.6 * (other - base)
    picture = picture * (1 + 0.06 * noise_plane(rng, side, 8)[..., None]) + rng.normal(0, 3, (side, side, 1))
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def background(rng: np.random.Generator, side: int) -> Texture:
    """(side, side, 3) a background: a studio's gradient, the blurred shapes of a room, or soft noise."""
    vivid = rng.uniform(0.05, 0.35) if rng.random() < 0.8 else 1.0  # rooms are greyer than random colours
    first, second = (c.mean() + vivid * (c - c.mean()) for c in rng.uniform(10, 245, (2, 3)))
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    picture = (first + ramp * (second - first)).astype(np.float32)
    kind = rng.random()
    if kind < 0.55:
        for _ in range(rng.integers(4, 16)):
            colour = tuple(float(c) for c in np.clip(first + rng.normal(0, 55) + vivid * rng.normal(0, 60, 3), 0, 255))
            left, top = (int(v) for v in rng.uniform(-0.2, 1, 2) * side)
            wide, high = (int(v) for v in rng.uniform(0.05, 0.5, 2) * side)
            if rng.random() < 0.7:
                cv2.rectangle(picture, (left, top), (left + wide, top + high), colour, -1)
            else:
                cv2.circle(picture, (left, top), wide // 2 + 1, colour, -1)
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.004, 0.04) * side))
    elif kind < 0.8:
        shades = np.stack([noise_plane(rng, side, 3) for _ in range(3)], axis=2)
        picture += (vivid * shades + (1 - vivid) * shades[..., :1]) * float(rng.uniform(5, 30))
    return np.asarray(np.clip(picture, 0, 255), np.uint8)
