"""Traces and lights the character: a window as key light, a fill, the room, and two lights from behind.

This renderer does not trace light paths. It uses the usual approximations for distance fields: penumbra from the
nearest miss of a ray, and occlusion from distances along the normal. They are fast and give the soft look of the style.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mien_draw_avatar.materials import Surface, Vector, dot, mixed, plus, scaled, surface_at, times, unit
from mien_draw_avatar.sculpture import (
    EYE,
    HAIR,
    JACKET,
    LASH,
    SHIRT,
    TEETH,
    Groom,
    Pose,
    above,
    clamp,
    compiled,
    compiled_parallel,
    eye_axes,
    lid_edges,
    scene,
    smooth_step,
    to_head,
    to_world,
)

#: The camera: pixels per unit at the focused depth, the pixel of its axis, its height, distance and focused depth.
PIXELS_PER_UNIT, CENTRE_X, CENTRE_Y = 124.0, 640.0, 276.0
LOOK_Y, DISTANCE, FOCUS_Z = -0.10, 13.0, 0.5

KEY = (-0.50, 0.52, 0.69)
KEY_COLOUR = (1.75, 1.62, 1.435)
FILL = (0.72, 0.10, 0.69)
BEHIND_RIGHT, BEHIND_LEFT = (0.80, 0.35, -0.45), (-0.85, 0.35, -0.45)

Picture = NDArray[np.float32]


def project(x: float, y: float, z: float, pose: Pose) -> tuple[float, float]:
    """Projects a point in head axes to the picture's pixels."""
    wx, wy, wz = to_world(x, y, z, pose)
    scale = PIXELS_PER_UNIT * (DISTANCE - FOCUS_Z) / (DISTANCE - wz)
    return CENTRE_X + wx * scale, CENTRE_Y - (wy - LOOK_Y) * scale


@compiled
def distance(p: Vector, pose: Pose, groom: Groom) -> float:
    d, _, _ = scene(p[0], p[1], p[2], pose, groom)
    return d


@compiled
def normal_at(p: Vector, e: float, pose: Pose, groom: Groom) -> Vector:
    a = distance((p[0] + e, p[1] - e, p[2] - e), pose, groom)
    b = distance((p[0] - e, p[1] - e, p[2] + e), pose, groom)
    c = distance((p[0] - e, p[1] + e, p[2] - e), pose, groom)
    d = distance((p[0] + e, p[1] + e, p[2] + e), pose, groom)
    return unit((a - b - c + d, -a - b + c + d, -a + b - c + d))


@compiled
def key_reaching(p: Vector, pose: Pose, groom: Groom) -> float:
    """The share of the key light that reaches p, with soft shadows: 0 to 1."""
    reaching, t = 1.0, 0.03
    for _ in range(34):
        d = distance(plus(p, scaled(KEY, t)), pose, groom)
        reaching = min(reaching, 0.5 + 2.5 * d / t)
        if reaching < 0.0 or t > 2.6:
            break
        t += clamp(d, 0.025, 0.16)
    return smooth_step(0.0, 1.0, reaching)


@compiled
def openness(p: Vector, normal: Vector, pose: Pose, groom: Groom) -> float:
    """The share of the room that p sees: 1 without obstacles, 0 in a corner."""
    hidden, weight = 0.0, 1.0
    for i in range(6):
        t = 0.012 + 0.075 * i
        hidden += max(t - distance(plus(p, scaled(normal, t)), pose, groom), 0.0) * weight
        weight *= 0.80
    return clamp(1.0 - 1.05 * hidden, 0.0, 1.0)


@compiled
def highlight(normal: Vector, light: Vector, view: Vector, roughness: float) -> float:
    """GGX with Schlick's Fresnel term, for skin, cloth and enamel."""
    half = unit(plus(light, view))
    nh, vh = max(dot(normal, half), 0.0), max(dot(view, half), 0.0)
    nl, nv = max(dot(normal, light), 0.0), max(dot(normal, view), 0.02)
    a2 = roughness**4
    spread = a2 / (math.pi * (nh * nh * (a2 - 1) + 1) ** 2)
    k = (roughness + 1) ** 2 / 8
    masking = 1 / ((nl * (1 - k) + k) * (nv * (1 - k) + k) * 4)
    return spread * masking * (0.04 + 0.96 * (1 - vh) ** 5) * nl


@compiled
def strand_highlight(surface: Surface, view: Vector, light: float) -> Vector:
    """Kajiya and Kay's two lobes, shifted along the hair differently for each strand."""
    half = unit(plus(plus(KEY, (0.0, 0.25, 0.0)), view))
    shine = (0.0, 0.0, 0.0)
    for lobe in range(2):
        shift = (0.10 if lobe == 0 else -0.12) + 0.22 * surface.grain
        tangent = unit(plus(surface.along, scaled(surface.normal, shift)))
        cosine = dot(tangent, half)
        strength = math.sqrt(max(1 - cosine * cosine, 0.0)) ** (90.0 if lobe == 0 else 28.0) * light
        shine = plus(shine, scaled((0.34, 0.26, 0.19) if lobe == 0 else (0.306, 0.171, 0.081), strength))
    return shine


@compiled
def diffuse_light(surface: Surface, facing: float, reaching: float, seen: float) -> Vector:
    """Incoming light: the key light, whose shadows have red edges on skin, the fill light, and the room."""
    s = surface.skin
    red, green, blue = 0.42 * s, 0.20 * s, 0.12 * s
    light = (
        max((facing + red) / (1 + red), 0.0) * (0.10 * s + (1 - 0.10 * s) * reaching ** (1 - 0.3 * s)),
        max((facing + green) / (1 + green), 0.0) * reaching,
        max((facing + blue) / (1 + blue), 0.0) * reaching ** (1 + 0.1 * s),
    )
    light = times(light, KEY_COLOUR)
    fill = 0.32 * (0.35 + 0.65 * seen) * max(dot(surface.normal, FILL), 0.0)
    light = plus(light, scaled((0.86, 0.92, 1.0), fill))
    up = 0.5 + 0.5 * surface.normal[1]
    room = mixed((0.20, 0.15, 0.13), (0.33, 0.34, 0.38), up)
    return plus(light, times(room, (seen ** (1 - 0.35 * s), seen, seen)))


@compiled
def light_from_behind(surface: Surface, view: Vector, seen: float, amount: float) -> Vector:
    rim = (1 - max(dot(surface.normal, view), 0.0)) ** 3
    right = 2.2 * amount * seen * (0.25 + rim) * max(dot(surface.normal, BEHIND_RIGHT), 0.0)
    left = 1.0 * amount * seen * (0.25 + rim) * max(dot(surface.normal, BEHIND_LEFT), 0.0)
    tinted = plus(scaled(surface.colour, 0.55), (0.10, 0.085, 0.07))
    return times(tinted, plus(scaled((1.0, 0.80, 0.58), right), scaled((0.80, 0.92, 1.10), left)))


@compiled
def beneath_lids(p: Vector, pose: Pose) -> float:
    """The share of light that the lids let through to an eye."""
    upper, lower = lid_edges(p[0], pose)
    _, ey, ez = eye_axes(p[0], p[1], p[2])
    shade = 0.45 + 0.55 * smooth_step(0.0, 0.10, -above(ey, ez, upper))
    return shade * (0.75 + 0.25 * smooth_step(0.0, 0.04, above(ey, ez, lower)))


@compiled
def shade(world: Vector, ray: Vector, material: int, clump: int, pose: Pose, groom: Groom) -> Vector:
    """Linear light that a point of the surface sends along the ray."""
    normal = normal_at(world, 0.002 if material in (JACKET, SHIRT) else 0.0009, pose, groom)
    p = to_head(world[0], world[1], world[2], pose)
    surface = surface_at(world, p, normal, material, clump, pose, groom)
    view = scaled(ray, -1.0)
    seen = openness(world, surface.normal, pose, groom)
    facing = dot(surface.normal, KEY)
    reaching = 1.0
    if facing > -0.4:
        reaching = key_reaching(plus(world, scaled(surface.normal, 0.02)), pose, groom)
    if material == EYE:  # light the eye as if it were flat; otherwise its white is grey at the side
        facing, reaching = 0.45 + 0.5 * facing, 0.35 + 0.65 * reaching
    light = times(surface.colour, diffuse_light(surface, facing, reaching, seen))
    behind = 0.1 if material in (EYE, TEETH, LASH) else 1.0
    light = plus(light, light_from_behind(surface, view, seen, behind))
    if material == HAIR:
        lit = clamp(0.25 + facing, 0, 1) * (0.25 + 0.75 * reaching) * seen
        light = plus(light, strand_highlight(surface, view, lit))
    else:
        window = highlight(surface.normal, KEY, view, surface.roughness) * surface.gloss * 3.5 * reaching
        lamp = highlight(surface.normal, (0.62, 0.30, 0.72), view, surface.roughness) * surface.gloss * 0.7 * seen
        light = plus(light, plus(scaled((1.0, 0.95, 0.9), window), scaled((0.9, 0.95, 1.0), lamp)))
        fuzz = surface.sheen * 0.20 * (1 - max(dot(surface.normal, view), 0.0)) ** 2.5 * (0.4 + 0.6 * seen)
        light = plus(light, scaled((0.5, 0.85, 0.9), fuzz))
    if material == EYE:
        light = scaled(light, 0.91 * beneath_lids(p, pose))
        light = plus(light, scaled((0.62, 0.61, 0.60), surface.glow))
    return light


@compiled
def follow(ray: Vector, pose: Pose, groom: Groom) -> tuple[float, int, int]:
    """Follows a ray from the camera: distance to the surface (negative: none), its material, the clump of hair."""
    t = (DISTANCE - 1.35) / -ray[2]
    d, material, clump = 1.0, 0, -1
    for _ in range(90):
        z = DISTANCE + ray[2] * t
        if z < -1.5:
            return -1.0, 0, -1
        d, material, clump = scene(ray[0] * t, LOOK_Y + ray[1] * t, z, pose, groom)
        if d < 0.0006:
            return t, material, clump
        t += d * 0.80
    return (t, material, clump) if d < 0.004 else (-1.0, 0, -1)


@compiled_parallel
def trace(left: int, top: int, width: int, height: int, samples: int, pose: Pose, groom: Groom) -> Picture:
    """Renders a rectangle of the picture, (height, width, 4): linear RGB times coverage, and coverage.

    samples: rays per pixel in each direction.
    """
    picture = np.zeros((height, width, 4), np.float32)
    for row in prange(height):
        for column in range(width):
            for s in range(samples * samples):
                px = left + column + (s % samples + 0.5) / samples
                py = top + row + (s // samples + 0.5) / samples
                x, y = (px - CENTRE_X) / PIXELS_PER_UNIT, (CENTRE_Y - py) / PIXELS_PER_UNIT
                ray = unit((x, y, FOCUS_Z - DISTANCE))
                t, material, clump = follow(ray, pose, groom)
                if t > 0:
                    at = (ray[0] * t, LOOK_Y + ray[1] * t, DISTANCE + ray[2] * t)
                    light = shade(at, ray, material, clump, pose, groom)
                    for channel in range(3):
                        picture[row, column, channel] += min(light[channel], 4.0)
                    picture[row, column, 3] += 1.0
    return picture / np.float32(samples * samples)


def developed(light: Picture) -> NDArray[np.uint8]:
    """Converts linear light to 8-bit sRGB with a filmic curve (Narkowicz's fit of ACES)."""
    x = np.maximum(light, 0) * 0.78
    y = np.clip((x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    luma = y @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    y = np.clip(luma[..., None] + 1.10 * (y - luma[..., None]), 0, 1)
    encoded = np.where(y < 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255 + 0.5, np.uint8)
