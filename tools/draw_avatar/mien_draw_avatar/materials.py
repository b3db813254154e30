"""The appearance of each material at a point: colour, gloss and grain. Colours are linear light."""

from __future__ import annotations

import math
from typing import NamedTuple

from mien_draw_avatar.sculpture import (
    BROW,
    EYE,
    EYE_RADIUS,
    EYE_X,
    EYE_Y,
    HAIR,
    JACKET,
    LASH,
    SKIN,
    TEETH,
    Array,
    Groom,
    Pose,
    bell,
    chain,
    clamp,
    compiled,
    half_gap,
    lips,
    mouth_axes,
    smooth_step,
)

Vector = tuple[float, float, float]


class Surface(NamedTuple):
    """The appearance of one point.

    colour: diffuse. roughness, gloss: of the highlight. skin: strength of subsurface scattering, 0..1. sheen: of cloth.
    glow: emitted light (a catchlight). along: direction of the hair, zero elsewhere. grain: shade of a single strand.
    """

    colour: Vector
    normal: Vector
    roughness: float
    gloss: float
    skin: float
    sheen: float
    glow: float
    along: Vector
    grain: float


@compiled
def scaled(v: Vector, by: float) -> Vector:
    return v[0] * by, v[1] * by, v[2] * by


@compiled
def plus(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@compiled
def times(a: Vector, b: Vector) -> Vector:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@compiled
def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@compiled
def unit(v: Vector) -> Vector:
    return scaled(v, 1 / math.sqrt(dot(v, v) + 1e-18))


@compiled
def mixed(a: Vector, b: Vector, amount: float) -> Vector:
    return plus(scaled(a, 1 - amount), scaled(b, amount))


@compiled
def _random(x: float, y: float, z: float) -> float:
    v = math.sin(x * 127.1 + y * 311.7 + z * 74.7) * 43758.5453
    return v - math.floor(v)


@compiled
def noise(x: float, y: float, z: float) -> float:
    """Smooth noise in [0, 1] with one lump per unit length."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a = _random(i, j, k) * (1 - u) + _random(i + 1, j, k) * u
    b = _random(i, j + 1, k) * (1 - u) + _random(i + 1, j + 1, k) * u
    c = _random(i, j, k + 1) * (1 - u) + _random(i + 1, j, k + 1) * u
    d = _random(i, j + 1, k + 1) * (1 - u) + _random(i + 1, j + 1, k + 1) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w


@compiled
def plain(colour: Vector, normal: Vector, roughness: float, gloss: float, sheen: float) -> Surface:
    return Surface(colour, normal, roughness, gloss, 0.0, sheen, 0.0, (0.0, 0.0, 0.0), 0.0)


@compiled
def skin_at(p: Vector, normal: Vector, pose: Pose, groom: Groom) -> Surface:
    x, y, z = p
    side = abs(x)
    colour = (0.70, 0.415, 0.300)
    blush = 0.52 * bell(side - 0.43, 0.20) * bell(y + 0.235, 0.16)
    blush += 0.38 * bell(x, 0.11) * bell(y + 0.235, 0.09) + 0.16 * bell(x, 0.20) * bell(y + 0.84, 0.10)
    colour = times(colour, (1 - 0.02 * blush, 1 - 0.36 * blush, 1 - 0.34 * blush))
    shadow = 0.22 * bell(side - EYE_X - 0.05, 0.20) * bell(y - EYE_Y - 0.15, 0.07)
    colour = times(colour, (1 - 0.16 * shadow, 1 - 0.34 * shadow, 1 - 0.30 * shadow))
    freckle = 0.25 * smooth_step(0.80, 0.92, noise(x * 34 + 5, y * 34, z * 20))
    freckle *= bell(side - 0.22, 0.22) * bell(y + 0.17, 0.10)
    colour = times(colour, (1 - 0.25 * freckle, 1 - 0.45 * freckle, 1 - 0.55 * freckle))
    under_brow = 0.25 * (1 - smooth_step(0.0, 0.05, chain(side, y, z, groom.brow)))
    colour = times(colour, (1 - 0.5 * under_brow, 1 - 0.6 * under_brow, 1 - 0.6 * under_brow))
    across, height, depth = mouth_axes(x, y, z)
    red = 1 - smooth_step(0.0, 0.016, lips(x, y, z, pose.mouth))
    red *= 1 - smooth_step(0.255, 0.295, abs(across))
    colour = mixed(colour, (0.57, 0.200, 0.175), red)
    seeps = 1.0
    if depth < -0.06 and abs(height) < half_gap(across, pose.mouth) + 0.06 and abs(across) < 0.28:
        colour, seeps = (0.075, 0.014, 0.014), 0.2  # inside the mouth
    return Surface(colour, normal, 0.46 - 0.13 * red, 0.95, seeps, 0.0, 0.0, (0.0, 0.0, 0.0), 0.0)


@compiled
def eye_at(p: Vector, normal: Vector) -> Surface:
    side = 1.0 if p[0] > 0 else -1.0
    x, y = (p[0] - side * EYE_X) / EYE_RADIUS, (p[1] - EYE_Y) / EYE_RADIUS
    reddish = smooth_step(0.55, 1.0, abs(x))
    colour = (0.80, 0.765 - 0.13 * reddish, 0.74 - 0.12 * reddish)
    ix, iy = x + side * 0.035, y - 0.02  # the eyes converge at a finite distance
    q = math.sqrt(ix * ix + iy * iy) / 0.60
    angle = math.atan2(iy, ix)
    fibres = 0.6 * noise(angle * 9 + 40, q * 1.2, 3.0) + 0.4 * noise(angle * 23 + 90, q * 1.8, 7.0)
    caustic = 0.75 + 0.75 * smooth_step(0.35, -0.5, iy / 0.60)
    iris = scaled((0.130, 0.062, 0.030), (0.55 + 0.75 * fibres * smooth_step(0.2, 0.7, q)) * caustic)
    iris = plus(iris, scaled((0.070, 0.030, 0.006), bell(q - 0.48, 0.16) * caustic))
    iris = scaled(iris, 1 - 0.81 * smooth_step(0.78, 1.0, q))
    iris = scaled(iris, 0.03 + 0.97 * smooth_step(0.42, 0.49, q))
    colour = mixed(colour, iris, 1 - smooth_step(0.94, 1.04, q))
    window = 2.6 * (1 - smooth_step(0.090, 0.130, math.sqrt((x + 0.16) ** 2 + ((y - 0.20) * 0.9) ** 2)))
    lamp = 0.55 * (1 - smooth_step(0.035, 0.075, math.sqrt((x - 0.20) ** 2 + (y + 0.22) ** 2)))
    return Surface(colour, normal, 0.22, 0.5, 0.0, 0.0, window + lamp, (0.0, 0.0, 0.0), 0.0)


@compiled
def on_clump(p: Vector, clump: Array) -> tuple[Vector, Vector, float]:
    """A point's place on a clump: the hair's direction, the offset from the clump's core, the share of its length."""
    nearest, at, part = 1e9, 0, 0.0
    for j in range(clump.shape[0] - 1):
        u = (clump[j + 1, 0] - clump[j, 0], clump[j + 1, 1] - clump[j, 1], clump[j + 1, 2] - clump[j, 2])
        v = (p[0] - clump[j, 0], p[1] - clump[j, 1], p[2] - clump[j, 2])
        h = clamp(dot(u, v) / dot(u, u), 0.0, 1.0)
        away = plus(v, scaled(u, -h))
        if dot(away, away) < nearest:
            nearest, at, part = dot(away, away), j, h
    # Blend the direction with the next link's. Otherwise highlights break at the joints.
    following = min(at + 1, clump.shape[0] - 2) if part > 0.5 else max(at - 1, 0)
    u = (clump[at + 1, 0] - clump[at, 0], clump[at + 1, 1] - clump[at, 1], clump[at + 1, 2] - clump[at, 2])
    w = (
        clump[following + 1, 0] - clump[following, 0],
        clump[following + 1, 1] - clump[following, 1],
        clump[following + 1, 2] - clump[following, 2],
    )
    core = (clump[at, 0] + u[0] * part, clump[at, 1] + u[1] * part, clump[at, 2] + u[2] * part)
    offset = (p[0] - core[0], p[1] - core[1], p[2] - core[2])
    return unit(mixed(u, w, abs(part - 0.5))), offset, (at + part) / (clump.shape[0] - 1)


@compiled
def hair_at(p: Vector, normal: Vector, clump: int, groom: Groom) -> Surface:
    near = smooth_step(-0.45, 0.05, p[2])  # hair at the nape is dark and has no detail
    colour = scaled((0.120, 0.050, 0.025), 0.40 + 0.60 * near)
    if clump < 0:
        return Surface(scaled(colour, 0.6), normal, 0.5, 0.0, 0.0, 0.0, 0.0, (0.0, -1.0, 0.0), 0.0)
    along, offset, share = on_clump(p, groom.strands[clump])
    outward = (p[0], p[1] - 0.36, p[2] + 0.16)
    outward = unit(plus(outward, scaled(along, -dot(outward, along))))
    aside = cross(along, outward)
    across = dot(offset, aside)
    # Strands of two sizes run along the clump. They change its tint and tilt its surface sideways.
    coarse = noise(across * 70 + clump * 13.7, share * 2.6, clump * 3.1)
    fine = noise(across * 115 + clump * 7.7, share * 4.0, clump * 5.3)
    step = 0.003
    coarse_next = noise((across + step) * 70 + clump * 13.7, share * 2.6, clump * 3.1)
    fine_next = noise((across + step) * 115 + clump * 7.7, share * 4.0, clump * 5.3)
    grain = near * ((coarse - 0.5) + 0.6 * (fine - 0.5))
    slope = clamp((coarse_next - coarse + 0.5 * (fine_next - fine)) / step * 0.010, -0.6, 0.6)
    normal = unit(plus(normal, scaled(aside, -slope * near)))
    lighter = 0.35 * smooth_step(0.25, 0.95, share)
    shade = 1 + 0.50 * grain + 0.25 * (_random(clump * 1.0, 2.0, 3.0) - 0.5)
    colour = times(scaled(colour, shade), (1 + 0.55 * lighter, 1 + 0.75 * lighter, 1 + 0.75 * lighter))
    return Surface(colour, normal, 0.5, 0.0, 0.0, 0.0, 0.0, along, grain)


@compiled
def cloth_at(p: Vector, normal: Vector, material: int) -> Surface:
    x, y, z = p
    worn = 1 + 0.12 * (noise(x * 3, y * 3, z * 3) - 0.5)
    if material != JACKET:
        return plain(scaled((0.66, 0.60, 0.52), worn), normal, 0.85, 0.35, 0.2)
    u = x * 30.0 - math.floor(x * 30.0) - 0.5
    v = y * 26.0 + abs(u) * 0.9
    stitch = abs(u) * 2 * (0.6 + 0.8 * abs(v - math.floor(v) - 0.5))
    return plain(scaled((0.030, 0.140, 0.155), worn * (0.88 + 0.2 * stitch)), normal, 0.85, 0.35, 0.9)


@compiled
def tooth_or_brow_at(p: Vector, normal: Vector, material: int) -> Surface:
    if material == TEETH:
        shade = 1.12 * (1 - 0.60 * smooth_step(0.10, 0.25, abs(p[0])))
        return plain(scaled((0.92, 0.89, 0.83), shade), normal, 0.25, 0.6, 0.0)
    strand = noise(p[0] * 10, p[1] * 75 - abs(p[0]) * 30, 3.0)
    return plain((0.085 + 0.05 * strand, 0.038 + 0.025 * strand, 0.020 + 0.015 * strand), normal, 0.7, 0.3, 0.0)


@compiled
def surface_at(
    world: Vector, p: Vector, normal: Vector, material: int, clump: int, pose: Pose, groom: Groom
) -> Surface:
    """The appearance of a point, given in world axes (world) and in head axes (p)."""
    if material == SKIN:
        return skin_at(p, normal, pose, groom)
    if material == EYE:
        return eye_at(p, normal)
    if material == HAIR:
        return hair_at(p, normal, clump, groom)
    if material == LASH:
        return plain((0.035, 0.022, 0.018), normal, 0.5, 0.3, 0.0)
    if material in (TEETH, BROW):
        return tooth_or_brow_at(p, normal, material)
    return cloth_at(world, normal, material)
