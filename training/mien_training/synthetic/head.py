"""The ICT face model as one mesh with identities, expressions and a neck about which the head turns.

ICT-FaceKit Light ((c) 2020 USC ICT, MIT) as stored in data/avatar3d. Units are centimetres; x points to the picture's
right, y up, z towards the camera. The face's own left is at positive x.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.int32]

#: The materials that are drawn. The model's others are transparent layers over the eyes, irises, which are painted on
#: our eyeballs, and lashes, which are a dark line along the lid at a webcam's resolution.
FACE, BACK, GUMS, TEETH, LEFT_EYE, RIGHT_EYE = 0, 1, 2, 3, 4, 6
DRAWN = (FACE, BACK, GUMS, TEETH, LEFT_EYE, RIGHT_EYE)

#: The head turns about this point. Vertices below LOW do not follow the turn; those above HIGH follow it fully.
PIVOT = np.array([0.0, -5.0, 0.5], np.float32)
LOW, HIGH = -14.0, -6.5

#: Name endings of expressions that exist separately for each side of the face.
BOTH_SIDES = ("_L", "_R")


@dataclass(frozen=True)
class Part:
    """One material's triangles over the split vertices (one for each pair of place and texture coordinate)."""

    material: int
    triangles: Indices


class HeadModel:
    """The mesh with its 40 identity modes and its 53 expressions.

    neutral: (V, 3). triangles: (T, 3) of it. split: (S,) the vertex of each split vertex. uv: (S, 2) in [0, 1], v up.
    parts: the parts to draw. landmarks68: (68,) vertices of the iBUG landmarks.
    """

    def __init__(self, folder: Path) -> None:
        """folder: data/avatar3d. Raises FileNotFoundError if a file is missing."""
        identity = np.load(folder / "ict_identity.npz")
        light = np.load(folder / "ict_light.npz")
        self.neutral = identity["neutral_cm"].astype(np.float32)
        self.modes = identity["identity_modes_cm"].astype(np.float32)
        self.deltas = light["deltas"].astype(np.float32)
        self.names = [str(name) for name in light["names"]]
        self.landmarks68 = identity["landmark68_vertices"].astype(np.int64)
        materials = identity["triangle_material"]
        kept = np.isin(materials, DRAWN)
        corners, corner_uv = identity["triangles"][kept], identity["triangle_uv"][kept]
        uv_count = len(identity["uv"])
        pairs, split = np.unique(corners.ravel().astype(np.int64) * uv_count + corner_uv.ravel(), return_inverse=True)
        self.triangles = corners.astype(np.int32)
        self.split = pairs // uv_count
        uv = identity["uv"][pairs % uv_count]
        self.uv = (uv - np.floor(uv)).astype(np.float32)
        split_triangles = split.reshape(-1, 3).astype(np.int32)
        self.parts = [Part(m, split_triangles[materials[kept] == m]) for m in DRAWN]
        self.material = np.zeros(len(self.neutral), np.uint8)
        for material in DRAWN:
            self.material[self.triangles[materials[kept] == material]] = material
        self.follows = _smooth_step(LOW, HIGH, self.neutral[:, 1])[:, None]

    def person(self, coefficients: Array) -> Array:
        """(V, 3) the neutral head of a person; coefficients: (40,) of unit variance."""
        shape: Array = self.neutral + np.tensordot(coefficients, self.modes, axes=1).astype(np.float32)
        return shape

    def expressed(self, person: Array, weights: dict[str, float]) -> Array:
        """(V, 3) a person with an expression. weights: in [0, 1] by name; a name without _L/_R means both sides."""
        shape = person.copy()
        for name, weight in weights.items():
            if weight == 0:
                continue
            for number in self._numbers(name):
                shape += np.float32(weight) * self.deltas[number]
        return shape

    def _numbers(self, name: str) -> list[int]:
        if name in self.names:
            return [self.names.index(name)]
        return [self.names.index(name + side) for side in BOTH_SIDES]

    def turned(self, shape: Array, rotation: Array, shift: Array) -> Array:
        """(V, 3) a head turned by rotation (3, 3) about the neck, moved by shift (3,); shoulders move half as far."""
        turned = (shape - PIVOT) @ rotation.T + PIVOT
        moved: Array = shape + self.follows * (turned - shape) + (0.5 + 0.5 * self.follows) * shift
        return moved

    def normals(self, shape: Array) -> Array:
        """(V, 3) unit normals of the vertices."""
        return normals_of(shape, self.triangles)


def normals_of(points: Array, triangles: Indices) -> Array:
    """(N, 3) unit normals of a mesh's vertices (N, 3). Triangles are weighted by their area."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    faces = np.cross(b - a, c - a)
    corners = triangles.ravel()
    sums = np.stack([np.bincount(corners, np.repeat(faces[:, axis], 3), len(points)) for axis in range(3)], axis=1)
    return np.asarray(sums / (np.linalg.norm(sums, axis=1, keepdims=True) + 1e-9), np.float32)


def rotation_of(yaw: float, pitch: float, roll: float) -> Array:
    """(3, 3) in radians; positive yaw to the picture's right, pitch upwards, roll clockwise as the picture shows it."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, np.float32)


def _smooth_step(low: float, high: float, value: Array) -> Array:
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
