"""Lays out hair and brows: chains of cones along curves that stay outside the skull."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mien_draw_avatar.sculpture import Array, Groom, Pose, head

Point = tuple[float, float, float]

_LINKS = 16
_SKULL_CENTRE = np.array([0.0, 0.36, -0.16])
_SKULL_RADII = np.array([0.80, 0.765, 0.865])

# Curves from the parting, right of the middle, to the ends at the jaw. Each pair has the front and the rear curve of a
# side.
_LEFT = (
    [
        (0.26, 1.02, 0.52),
        (-0.10, 0.93, 0.72),
        (-0.55, 0.62, 0.66),
        (-0.80, 0.10, 0.46),
        (-0.79, -0.36, 0.36),
        (-0.60, -0.76, 0.34),
    ],
    [
        (0.14, 1.15, -0.50),
        (-0.35, 1.05, -0.75),
        (-0.80, 0.60, -0.60),
        (-0.98, 0.0, -0.50),
        (-0.84, -0.42, -0.40),
        (-0.64, -0.82, -0.32),
    ],
)
_RIGHT = (
    [
        (0.28, 1.02, 0.52),
        (0.46, 0.86, 0.62),
        (0.68, 0.55, 0.56),
        (0.80, 0.10, 0.44),
        (0.79, -0.36, 0.36),
        (0.60, -0.76, 0.34),
    ],
    [
        (0.18, 1.15, -0.50),
        (0.45, 1.02, -0.70),
        (0.85, 0.60, -0.60),
        (0.98, 0.0, -0.50),
        (0.84, -0.42, -0.40),
        (0.64, -0.82, -0.32),
    ],
)
_FRINGE_LEFT = (
    [
        (0.28, 1.02, 0.53),
        (0.02, 0.84, 0.74),
        (-0.36, 0.585, 0.80),
        (-0.70, 0.26, 0.58),
        (-0.82, -0.20, 0.40),
        (-0.60, -0.74, 0.34),
    ],
    [
        (0.25, 1.06, 0.42),
        (-0.10, 0.96, 0.66),
        (-0.52, 0.66, 0.70),
        (-0.80, 0.24, 0.46),
        (-0.85, -0.20, 0.33),
        (-0.62, -0.78, 0.30),
    ],
)
_FRINGE_RIGHT = (
    [
        (0.29, 1.02, 0.53),
        (0.47, 0.84, 0.64),
        (0.67, 0.50, 0.60),
        (0.80, 0.12, 0.46),
        (0.82, -0.20, 0.40),
        (0.60, -0.74, 0.34),
    ],
    [
        (0.27, 1.06, 0.42),
        (0.52, 0.90, 0.52),
        (0.76, 0.55, 0.45),
        (0.90, 0.12, 0.34),
        (0.86, -0.20, 0.30),
        (0.62, -0.78, 0.29),
    ],
)
_FINE_LEFT = (
    [
        (0.24, 1.05, 0.50),
        (-0.16, 0.98, 0.66),
        (-0.60, 0.64, 0.62),
        (-0.88, 0.10, 0.38),
        (-0.84, -0.36, 0.30),
        (-0.64, -0.72, 0.30),
    ],
    [
        (0.18, 1.15, -0.10),
        (-0.32, 1.08, 0.0),
        (-0.83, 0.60, 0.0),
        (-1.0, 0.0, -0.10),
        (-0.86, -0.42, -0.10),
        (-0.66, -0.80, -0.05),
    ],
)
_FINE_RIGHT = (
    [
        (0.29, 1.05, 0.50),
        (0.50, 0.90, 0.58),
        (0.74, 0.57, 0.52),
        (0.90, 0.10, 0.36),
        (0.84, -0.36, 0.30),
        (0.64, -0.72, 0.30),
    ],
    [
        (0.22, 1.15, -0.10),
        (0.50, 1.02, 0.0),
        (0.88, 0.60, 0.0),
        (1.0, 0.0, -0.10),
        (0.86, -0.42, -0.10),
        (0.66, -0.80, -0.05),
    ],
)
_NAPE = (
    [(-0.80, 0.10, -0.55), (-0.82, -0.40, -0.50), (-0.62, -0.84, -0.35)],
    [(0.80, 0.10, -0.55), (0.82, -0.40, -0.50), (0.62, -0.84, -0.35)],
)

#: The right brow on the skin, from the nose outwards: x, y, radius.
_BROW = ((0.13, 0.355, 0.015), (0.20, 0.380, 0.022), (0.31, 0.398, 0.022), (0.42, 0.378, 0.016), (0.525, 0.320, 0.006))


def make_groom(seed: int = 5) -> Groom:
    """Hair and brows of the character at rest."""
    rng = np.random.default_rng(seed)
    clumps = [
        *_clumps(_LEFT, 14, rng, lift=0.045, radii=(0.115, 0.075), jitter=0.010),
        *_clumps(_RIGHT, 13, rng, lift=0.045, radii=(0.115, 0.075), jitter=0.010),
        *_clumps(_FRINGE_LEFT, 6, rng, lift=0.075, radii=(0.075, 0.045), jitter=0.008),
        *_clumps(_FRINGE_RIGHT, 4, rng, lift=0.075, radii=(0.070, 0.045), jitter=0.008),
        *_clumps(_FINE_LEFT, 9, rng, lift=0.085, radii=(0.050, 0.032), jitter=0.018),
        *_clumps(_FINE_RIGHT, 7, rng, lift=0.085, radii=(0.050, 0.032), jitter=0.018),
        *_clumps(_NAPE, 9, rng, lift=0.020, radii=(0.150, 0.100), jitter=0.010),
    ]
    strands = np.array(clumps)
    points, radii = strands[:, :, :3], strands[:, :, 3]
    centres = (points.min(axis=1) + points.max(axis=1)) / 2
    reach = (np.linalg.norm(points - centres[:, None], axis=2) + radii).max(axis=1)
    on_skin = np.array([(x, y, skin_depth(x, y) + 0.004, radius) for x, y, radius in _BROW])
    return Groom(strands, np.column_stack([centres, reach]), _curve(on_skin, 9))


def skin_depth(x: float, y: float) -> float:
    """z of the front of the head's skin at rest."""
    z = 1.4
    for _ in range(200):
        z -= 0.5 * head(x, y, z, Pose())
    return z


def _clumps(
    between: tuple[Sequence[Point], Sequence[Point]],
    count: int,
    rng: np.random.Generator,
    *,
    lift: float,
    radii: tuple[float, float],
    jitter: float,
) -> list[Array]:
    """`count` clumps between two guide curves. lift: distance from the skull. radii: at root and end."""
    first, last = (np.array(guide) for guide in between)
    along = np.linspace(0, 1, _LINKS)
    fullness = np.clip(np.sin(np.pi * np.clip(along * 0.86 + 0.14, 0, 1)) ** 0.45, 0.10, 1)
    made = []
    for part in np.linspace(0, 1, count):
        guide = (1 - part) * first + part * last
        guide = guide + rng.normal(scale=jitter, size=guide.shape) * np.linspace(0.2, 1, len(guide))[:, None]
        curve = _curve(np.array([_outside(point, lift) for point in guide]), _LINKS)
        curve = np.array([_outside(point, lift) for point in curve])
        radius = (radii[0] * (1 - along) + radii[1] * along) * (1 + rng.normal(scale=0.08)) * fullness
        made.append(np.column_stack([curve, radius]))
    return made


def _outside(point: Array, lift: float) -> Array:
    """Move a point onto the skull: an ellipsoid above the ears, and below them a vertical wall down to the chin."""
    radii = _SKULL_RADII + lift
    q = (point - _SKULL_CENTRE) / radii
    if q[1] > 0:
        return np.asarray(_SKULL_CENTRE + (point - _SKULL_CENTRE) / np.linalg.norm(q))
    hold = np.clip((point[1] + 0.38) / 0.55, 0, 1)
    hold = hold * hold * (3 - 2 * hold)
    stretch = 1 + (1 / max(float(np.hypot(q[0], q[2])), 1e-6) - 1) * hold
    moved = _SKULL_CENTRE + (point - _SKULL_CENTRE) * stretch
    moved[1] = point[1]
    return np.asarray(moved)


def _curve(points: Array, count: int) -> Array:
    """`count` points along a Catmull-Rom curve through (n, k) points."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    made = []
    for t in np.linspace(0, len(points) - 1, count):
        i = min(int(t), len(points) - 2)
        u = t - i
        a, b, c, d = padded[i : i + 4]
        made.append(0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3))
    return np.array(made)
