"""The character's shape as signed distances, with the nearest material.

A unit is about half a head. x points right, y up, z to the viewer; the head's axes turn about a pivot in the neck. A
distance is negative inside. Where shapes are bent or joined it is inexact, so the tracer shortens its steps. The
building blocks (smooth minimum, ellipsoid, cone) are Inigo Quilez's published distance functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compiles a function to machine code; it may call only other compiled functions.

    It is compiled again in each run, because numba's cache on disk does not notice a change in a called function.
    """
    return cast(F, njit(fastmath=True, error_model="numpy")(function))


def compiled_parallel(function: F) -> F:
    """Like compiled, with its prange loops on all cores."""
    return cast(F, njit(parallel=True, fastmath=True, error_model="numpy")(function))


class Material(IntEnum):
    """The material of a point of the surface."""

    NONE = 0
    SKIN = 1
    EYE = 2
    LASH = 3
    BROW = 4
    TEETH = 5
    HAIR = 6
    JACKET = 7
    SHIRT = 8


# The compiler treats plain integers as constants.
SKIN, EYE, LASH, BROW = int(Material.SKIN), int(Material.EYE), int(Material.LASH), int(Material.BROW)
TEETH, HAIR, JACKET, SHIRT = int(Material.TEETH), int(Material.HAIR), int(Material.JACKET), int(Material.SHIRT)


class Pose(NamedTuple):
    """The character's pose. Angles are in radians; shares go from 0 (at rest) to 1 (fully).

    yaw: positive to the picture's right. pitch: negative upwards. roll: positive to the picture's left. mouth: share of
    opening. left_eye, right_eye: share of closing; left is the picture's left.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    mouth: float = 0.0
    left_eye: float = 0.0
    right_eye: float = 0.0


class Groom(NamedTuple):
    """The layout of hair and brows.

    strands: (n, m, 4) clumps of hair as chains of x, y, z, radius. bounds: (n, 4) a bounding
    sphere of each clump. brow: (b, 4) the chain of the right brow; the left one is its mirror image. nape: how far the
    hair behind the neck reaches down.
    """

    strands: Array
    bounds: Array
    brow: Array
    nape: float = 0.74


PIVOT_Y, PIVOT_Z = -0.95, -0.15

EYE_X, EYE_Y, EYE_Z, EYE_RADIUS = 0.330, 0.050, 0.505, 0.228
LID_THICKNESS = 0.022
#: Elevation of the edges of open and shut lids, radians.
UPPER_LID_OPEN, UPPER_LID_SHUT = 0.60, -0.30
LOWER_LID_OPEN, LOWER_LID_SHUT = -0.36, -0.36
#: The outer corner of an eye lies higher by this angle.
EYE_TILT = 0.10

MOUTH_HALF_WIDTH = 0.282
#: Half the gap between the lips at rest, and what an open mouth adds.
LIPS_APART, MOUTH_OPENING = 0.035, 0.10


@compiled
def clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@compiled
def smooth_step(low: float, high: float, value: float) -> float:
    t = clamp((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


@compiled
def smooth_min(a: float, b: float, width: float) -> float:
    h = max(width - abs(a - b), 0.0) / width
    return min(a, b) - h * h * width * 0.25


@compiled
def smooth_max(a: float, b: float, width: float) -> float:
    return -smooth_min(-a, -b, width)


@compiled
def bell(value: float, width: float) -> float:
    return math.exp(-((value / width) ** 2))


@compiled
def ellipsoid(x: float, y: float, z: float, cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> float:
    x, y, z = x - cx, y - cy, z - cz
    k0 = math.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)
    k1 = math.sqrt((x / (rx * rx)) ** 2 + (y / (ry * ry)) ** 2 + (z / (rz * rz)) ** 2)
    return k0 * (k0 - 1.0) / max(k1, 1e-6)


@compiled
def cone(
    x: float,
    y: float,
    z: float,
    ax: float,
    ay: float,
    az: float,
    ra: float,
    bx: float,
    by: float,
    bz: float,
    rb: float,
) -> float:
    """A capsule from a to b whose radius changes from ra to rb."""
    ux, uy, uz = bx - ax, by - ay, bz - az
    px, py, pz = x - ax, y - ay, z - az
    h = clamp((px * ux + py * uy + pz * uz) / (ux * ux + uy * uy + uz * uz), 0.0, 1.0)
    dx, dy, dz = px - ux * h, py - uy * h, pz - uz * h
    return math.sqrt(dx * dx + dy * dy + dz * dz) - (ra + (rb - ra) * h)


@compiled
def chain(x: float, y: float, z: float, links: Array) -> float:
    """Distance to a chain of cones; links: (n, 4) x, y, z, radius."""
    nearest = 1e9
    for j in range(links.shape[0] - 1):
        a, b = links[j], links[j + 1]
        nearest = min(nearest, cone(x, y, z, a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]))
    return nearest


@compiled
def to_head(x: float, y: float, z: float, pose: Pose) -> tuple[float, float, float]:
    """Converts world axes to head axes."""
    y, z = y - PIVOT_Y, z - PIVOT_Z
    c, s = math.cos(pose.roll), math.sin(pose.roll)
    x, y = c * x + s * y, -s * x + c * y
    c, s = math.cos(pose.yaw), math.sin(pose.yaw)
    x, z = c * x - s * z, s * x + c * z
    c, s = math.cos(pose.pitch), math.sin(pose.pitch)
    y, z = c * y + s * z, -s * y + c * z
    return x, y + PIVOT_Y, z + PIVOT_Z


def to_world(x: float, y: float, z: float, pose: Pose) -> tuple[float, float, float]:
    """Converts head axes to world axes; the inverse of to_head."""
    y, z = y - PIVOT_Y, z - PIVOT_Z
    c, s = math.cos(pose.pitch), math.sin(pose.pitch)
    y, z = c * y - s * z, s * y + c * z
    c, s = math.cos(pose.yaw), math.sin(pose.yaw)
    x, z = c * x + s * z, -s * x + c * z
    c, s = math.cos(pose.roll), math.sin(pose.roll)
    x, y = c * x - s * y, s * x + c * y
    return x, y + PIVOT_Y, z + PIVOT_Z


@compiled
def mouth_axes(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Curved axes of the mouth: across, height above the line between the lips, depth in front of the lips."""
    return x, y - (-0.500 + 0.85 * x * x), z - (0.775 - 1.0 * x * x)


@compiled
def half_gap(across: float, mouth: float) -> float:
    """Half of the gap between the lips."""
    return (LIPS_APART + mouth * MOUTH_OPENING) * clamp(1.0 - (across / MOUTH_HALF_WIDTH) ** 2, 0.0, 1.0)


@compiled
def lips(x: float, y: float, z: float, mouth: float) -> float:
    across, height, depth = mouth_axes(x, y, z)
    t = clamp(1.0 - (across / 0.295) ** 2, 0.0, 1.0)
    fullness = math.sqrt(t)
    gap = (LIPS_APART + mouth * MOUTH_OPENING) * t
    upper = 0.008 + 0.024 * fullness - 0.008 * bell(across, 0.035) * fullness
    lower = 0.008 + 0.032 * fullness
    u = math.sqrt(
        (height - gap * 0.75 - upper * 0.75) ** 2 + (depth * 0.85 + 0.018) ** 2 + max(abs(across) - 0.283, 0.0) ** 2
    )
    v = math.sqrt(
        (height + gap + lower * 0.78 + mouth * 0.02) ** 2
        + (depth * 0.85 + 0.016) ** 2
        + max(abs(across) - 0.272, 0.0) ** 2
    )
    return min(u - upper, v - lower) * 0.8


@compiled
def lid_edges(x: float, pose: Pose) -> tuple[float, float]:
    """Elevations of the edges of the upper and lower lid, for the eye on x's side."""
    shut = pose.right_eye if x > 0 else pose.left_eye
    return (
        UPPER_LID_OPEN + (UPPER_LID_SHUT - UPPER_LID_OPEN) * shut,
        LOWER_LID_OPEN + (LOWER_LID_SHUT - LOWER_LID_OPEN) * shut,
    )


@compiled
def eye_axes(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Axes of the nearer eye from its centre, with x outwards, tilted by EYE_TILT."""
    ex, ey, ez = abs(x) - EYE_X, y - EYE_Y, z - EYE_Z
    c, s = math.cos(EYE_TILT), math.sin(EYE_TILT)
    return c * ex + s * ey, -s * ex + c * ey, ez


@compiled
def above(ey: float, ez: float, elevation: float) -> float:
    """Height of a point above the plane through the eye's axis at this elevation."""
    return ey * math.cos(elevation) - ez * math.sin(elevation)


@compiled
def bare_head(x: float, y: float, z: float, mouth: float) -> float:
    """Skull, cheeks and jaw, without eyes, nose and mouth."""
    ax = math.sqrt(x * x + 0.0004)  # a smooth abs(), which leaves no crease down the face
    d = ellipsoid(ax, y, z, 0, 0.34, -0.12, 0.77, 0.74, 0.85)
    d = smooth_min(d, ellipsoid(ax, y, z, 0, -0.10, 0.12, 0.615, 0.76, 0.64), 0.30)
    d = smooth_min(d, ellipsoid(ax, y, z, 0, -0.735 - 0.12 * mouth, 0.38, 0.205, 0.20, 0.23), 0.28)
    d = smooth_min(d, ellipsoid(ax, y, z, 0.365, -0.225, 0.44, 0.25, 0.19, 0.25), 0.22)  # cheeks
    d = smooth_min(d, ellipsoid(ax, y, z, 0, -0.49, 0.55, 0.27, 0.19, 0.19), 0.18)  # the base of the mouth
    d = smooth_min(d, ellipsoid(ax, y, z, 0.27, 0.30, 0.58, 0.27, 0.07, 0.12), 0.18)  # brow
    d = smooth_max(d, -ellipsoid(ax, y, z, 0.37, 0.06, 0.90, 0.21, 0.15, 0.14), 0.18)  # sockets
    return smooth_max(d, -ellipsoid(ax, y, z, 0.32, -0.425, 0.74, 0.03, 0.04, 0.06), 0.09)  # the ends of the smile


@compiled
def with_lids(d: float, x: float, y: float, z: float, pose: Pose) -> float:
    """The head's distance d after cutting out the eyeballs and adding the lids."""
    ex, ey, ez = eye_axes(x, y, z)
    r = math.sqrt(ex * ex + ey * ey + ez * ez)
    if r > 0.6:
        return d
    upper, lower = lid_edges(x, pose)
    opening = max(above(ey, ez, upper), -above(ey, ez, lower))
    shell = r - EYE_RADIUS - LID_THICKNESS
    d = smooth_min(smooth_max(d, -(r - EYE_RADIUS - 0.004), 0.02), shell, 0.07)
    if ez > 0:  # the fold above the lid
        d += 0.008 * bell(above(ey, ez, upper + 0.30), 0.014) * clamp(1 - abs(shell) / 0.05, 0, 1)
    if r < EYE_RADIUS + 0.12:
        d = smooth_max(d, -max(opening, -ez - 0.02), 0.016)
    return d


@compiled
def head(x: float, y: float, z: float, pose: Pose) -> float:
    """The head's skin, without the neck."""
    ax = math.sqrt(x * x + 0.0004)
    d = with_lids(bare_head(x, y, z, pose.mouth), x, y, z, pose)
    d = smooth_min(d, cone(ax, y, z, 0, 0.10, 0.665, 0.050, 0, -0.19, 0.83, 0.074), 0.13)  # nose: bridge,
    d = smooth_min(d, ellipsoid(ax, y, z, 0, -0.215, 0.870, 0.096, 0.096, 0.096), 0.07)  # tip,
    d = smooth_min(d, ellipsoid(ax, y, z, 0.088, -0.236, 0.80, 0.058, 0.054, 0.07), 0.055)  # wings,
    d = smooth_max(d, -ellipsoid(ax, y, z, 0.046, -0.306, 0.855, 0.028, 0.022, 0.045), 0.03)  # nostrils
    d = smooth_min(d, lips(x, y, z, pose.mouth), 0.045)
    across, height, depth = mouth_axes(x, y, z)
    gap = half_gap(across, pose.mouth)
    slot = max(height - 0.8 * gap, -height - 1.05 * gap, abs(across) - 0.275, -depth - 0.3)
    return smooth_max(d, -slot, 0.014)


@compiled
def neck(x: float, y: float, z: float) -> float:
    d = cone(x, y, z, 0, -0.55, -0.16, 0.275, 0, -1.60, -0.30, 0.315)
    ax = math.sqrt(x * x + 0.002)
    return smooth_min(d, cone(ax, y, z, 0.17, -0.95, -0.02, 0.02, 0.05, -1.42, 0.02, 0.03), 0.14)


@compiled
def hair(x: float, y: float, z: float, groom: Groom) -> tuple[float, int]:
    """Distance to the hair, and the index of the nearest clump; -1 for the hair under the clumps."""
    nearest, which, joined = 1e9, -1, 1e9
    for i in range(groom.strands.shape[0]):
        b = groom.bounds[i]
        outside = math.sqrt((x - b[0]) ** 2 + (y - b[1]) ** 2 + (z - b[2]) ** 2) - b[3]
        if outside > 0.35:
            if outside < nearest:
                joined = min(joined, outside)
            continue
        if outside > joined + 0.028:
            continue
        d = chain(x, y, z, groom.strands[i])
        if d < nearest:
            nearest, which = d, i
        joined = smooth_min(joined, d, 0.028)
    cap = ellipsoid(x, y, z, 0, 0.36, -0.16, 0.835, 0.80, 0.90)
    cap = smooth_max(cap, -ellipsoid(x, y, z, 0.10, -0.10, 0.98, 0.66, 0.80, 0.72), 0.06)
    cap = smooth_min(cap, ellipsoid(x, y, z, 0, 0.60 - groom.nape, -0.50, 0.86, groom.nape, 0.44), 0.2)
    return smooth_min(joined, cap, 0.05), which


@compiled
def lash(x: float, y: float, z: float, pose: Pose) -> float:
    """The dark edges of the lids."""
    ex, ey, ez = eye_axes(x, y, z)
    r = math.sqrt(ex * ex + ey * ey + ez * ez)
    if r > 0.5 or ez < 0:
        return max(r - 0.3, 0.05)
    upper, lower = lid_edges(x, pose)
    outwards = clamp((ex + 0.16) / 0.34, 0, 1)
    wing = 0.004 + 0.03 * max(outwards - 0.7, 0)
    u = math.sqrt(((r - EYE_RADIUS - LID_THICKNESS - 0.004) * 0.9) ** 2 + (above(ey, ez, upper) - wing) ** 2)
    v = math.sqrt((r - EYE_RADIUS - 0.012) ** 2 + above(ey, ez, lower) ** 2)
    return min(u - 0.005 - 0.014 * outwards, v - 0.003 - 0.004 * outwards) * 0.9


@compiled
def teeth(x: float, y: float, z: float, mouth: float) -> float:
    """The upper row of teeth. It ends above the lower lip, so that a dark line shows where the mouth opens."""
    across, height, depth = mouth_axes(x, y, z)
    between = abs(across) * 15.0
    groove = 0.003 * bell(abs(between - math.floor(between + 0.5)), 0.10)
    bottom = -0.15 * half_gap(across, 0.0) - 0.004
    return max(depth + 0.055 + groove, -depth - 0.13, bottom - height, height - 0.09, abs(across) - 0.26) * 0.8


@compiled
def torso(x: float, y: float, z: float) -> float:
    """Body and arms in clothes, with folds."""
    ax = math.sqrt(x * x + 0.01)
    y -= 0.26
    d = ellipsoid(ax, y, z, 0, -3.25, -0.35, 1.06, 1.75, 0.66)
    d = smooth_min(d, cone(ax, y, z, 0, -1.78, -0.34, 0.36, 1.02, -2.20, -0.38, 0.36), 0.35)
    d = smooth_min(d, cone(ax, y, z, 1.10, -2.26, -0.38, 0.36, 1.40, -4.2, -0.20, 0.40), 0.10)
    d = smooth_min(d, ellipsoid(ax, y, z, 0.30, -2.75, 0.02, 0.52, 0.44, 0.26), 0.40)
    if d < 0.2:
        low = clamp(-(y + 2.4), 0, 1)
        d += 0.036 * math.sin(6 * y + 5 * ax + 2 * math.sin(2.3 * x + y)) * bell(ax - 0.95, 0.30) * bell(y + 2.75, 0.5)
        d += 0.032 * math.sin(9 * y - 3.5 * ax + 1.5 * math.sin(3 * y)) * bell(ax - 1.3, 0.25) * low
        d += 0.009 * math.sin(4 * x + 3 * y) * low
    return d


@compiled
def jacket(x: float, y: float, z: float, under: float) -> float:
    """The open jacket over the shirt; under: the distance to the torso."""
    ax = abs(x)
    edge = 0.17 + 0.30 * bell(y + 1.31, 0.62)
    band = math.exp(-(((ax - edge - 0.055) / 0.050) ** 4)) if z > -0.25 else 0.0
    d = smooth_max(under - 0.055 - 0.016 * band, max(edge - ax, -z - 0.30) * 0.9, 0.035)
    return smooth_max(d, -ellipsoid(x, y, z, 0, -1.12, -0.22, 0.50, 0.52, 0.50), 0.04)


@compiled
def collar(x: float, y: float, z: float) -> float:
    """The shirt's ribbed neckline."""
    c, s = math.cos(0.30), math.sin(0.30)
    y, z = y + 1.335, z + 0.235
    y, z = c * y + s * z, -s * y + c * z
    rho = math.sqrt(x * x + (z * 1.08) ** 2)
    ring = math.sqrt(((rho - 0.405) * 1.25) ** 2 + (y * 0.80) ** 2) - 0.052
    return ring * 0.8 - 0.0025 * math.sin(math.atan2(x, z) * 74.0)


@compiled
def clothes(x: float, y: float, z: float) -> tuple[float, int]:
    under = torso(x, y, z)
    if under > 0.3:
        return under - 0.08, SHIRT
    shirt = min(under, collar(x, y, z))
    over = jacket(x, y, z, under)
    if over < shirt:
        return over, JACKET
    return shirt, SHIRT


@compiled
def features(x: float, y: float, z: float, pose: Pose, groom: Groom) -> tuple[float, int]:
    """Eyes, lashes, brows and teeth, in head axes."""
    if y < -0.35:
        return teeth(x, y, z, pose.mouth), TEETH
    d, material = ellipsoid(abs(x), y, z, EYE_X, EYE_Y, EYE_Z, EYE_RADIUS, EYE_RADIUS, EYE_RADIUS), EYE
    edge = lash(x, y, z, pose)
    if edge < d:
        d, material = edge, LASH
    brow = chain(abs(x), y, z, groom.brow)
    if brow < d:
        d, material = brow, BROW
    return d, material


@compiled
def scene(x: float, y: float, z: float, pose: Pose, groom: Groom) -> tuple[float, int, int]:
    """Distance to the character, the nearest material, and the clump of hair (-1: none)."""
    d, material = clothes(x, y, z)
    throat = neck(x, y, z)
    hx, hy, hz = to_head(x, y, z, pose)
    beyond = math.sqrt(hx * hx + (hy - 0.1) ** 2 + (hz + 0.05) ** 2) - 1.5
    if beyond > 0.3:
        nearest = min(throat, beyond)
        return (nearest, SKIN, -1) if nearest < d else (d, material, -1)
    skin = smooth_min(head(hx, hy, hz, pose), throat, 0.10)
    if skin < d:
        d, material = skin, SKIN
    locks, clump = hair(hx, hy, hz, groom)
    if locks < d:
        d, material = locks, HAIR
    if hz > 0.2:
        feature, of = features(hx, hy, hz, pose, groom)
        if feature < d:
            d, material = feature, of
    return d, material, clump
