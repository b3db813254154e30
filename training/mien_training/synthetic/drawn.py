"""Drawn characters: the bundled avatar's sculpture with other hair, brows, colours and backdrops, and exact motion.

Tracing a frame takes seconds and recolouring it almost no time, so each traced sequence is used for several characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mien_draw_avatar.__main__ import CROP_SIZE, CROP_X, CROP_Y
from mien_draw_avatar.backdrop import backdrop
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
    project,
    shade,
)
from mien_draw_avatar.sculpture import (
    EYE_RADIUS,
    EYE_TILT,
    EYE_X,
    EYE_Y,
    EYE_Z,
    LID_THICKNESS,
    Groom,
    Material,
    Pose,
    half_gap,
    lid_edges,
)
from mien_landmarks.geometry import NUM_LANDMARKS, CropSquare
from mien_training.synthetic import paint
from mien_training.synthetic.dataset import Film, LabelledSequence, labelled, shaken
from mien_training.synthetic.labels import framing

SOURCE = "Mien's own sculpted character, recoloured"

#: Characters made from one traced sequence.
CHARACTERS_PER_TRACE = 5

Picture = NDArray[np.float32]
Points = NDArray[np.float64]

#: Landmarks of the lids, from the inner corner outwards; the picture's left eye first.
_UPPER_LIDS = ((173, 157, 158, 159, 160, 161, 246), (398, 384, 385, 386, 387, 388, 466))
_LOWER_LIDS = ((155, 154, 153, 145, 144, 163, 7), (382, 381, 380, 374, 373, 390, 249))
_UPPER_LIP = (185, 40, 39, 37, 0, 267, 269, 270, 409, 191, 80, 81, 82, 13, 312, 311, 310, 415)
_LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375, 95, 88, 178, 87, 14, 317, 402, 318, 324)

#: The sculpture's original linear colours, which are replaced.
_SKIN, _HAIR, _JACKET, _SHIRT = (0.70, 0.415, 0.300), (0.120, 0.050, 0.025), (0.030, 0.140, 0.155), (0.66, 0.60, 0.52)


@dataclass(frozen=True)
class Traced:
    """One frame. light: linear light times coverage (S, S, 3). shares: each material's share of a pixel (S, S, 9).

    landmarks: (478, 2) in pixels of the sculpture's picture, NaN for the irises.
    """

    light: Picture
    shares: Picture
    landmarks: Points


@cache
def _landmark_points() -> tuple[Points, NDArray[np.int64]]:
    """(468, 3) Face Mesh's landmarks on the sculpture at rest, in head axes, and (468,) each landmark's mirror image.

    They were fitted once: found in the bundled avatar's picture, made symmetric, and projected onto the skin.
    """
    table = json.loads((files(__package__) / "drawn_landmarks.json").read_text())
    return np.array(table["points"]), np.array(table["mirrored"])


def landmarks_in(pose: Pose) -> Points:
    """(478, 2) landmarks of this pose, in pixels of the sculpture's picture; NaN for the irises."""
    points = _landmark_points()[0].copy()
    jaw = np.clip((-0.50 - points[:, 1]) / 0.22, 0, 1) * np.clip(points[:, 2] / 0.4, 0, 1)
    points[:, 1] -= 0.12 * pose.mouth * jaw * jaw * (3 - 2 * jaw)
    for lips, towards in ((_UPPER_LIP, 1.0), (_LOWER_LIP, -1.0)):
        for landmark in lips:
            x, y, _ = _landmark_points()[0][landmark]
            opening = half_gap(x, pose.mouth) - half_gap(x, 0.0)
            points[landmark, 1] = y + towards * opening - (0.02 * pose.mouth if towards < 0 else 0.0)
    rest = Pose()
    for side, upper, lower in ((-1.0, _UPPER_LIDS[0], _LOWER_LIDS[0]), (1.0, _UPPER_LIDS[1], _LOWER_LIDS[1])):
        edges, open_edges = lid_edges(side, pose), lid_edges(side, rest)
        shut = pose.right_eye if side > 0 else pose.left_eye
        for ring, elevation, before in ((upper, edges[0], open_edges[0]), (lower, edges[1], open_edges[1])):
            for landmark in ring:
                # Face Mesh's edges are a little off the lids. Fade this offset out, so that closing lids meet and do
                # not cross.
                off = points[landmark] - _on_lid(points[landmark], side, before)
                points[landmark] = _on_lid(points[landmark], side, elevation) + (1 - shut) * off
    seen = np.full((NUM_LANDMARKS, 2), np.nan)
    seen[: len(points)] = [project(x, y, z, pose) for x, y, z in points]
    return seen


def _on_lid(near: Points, side: float, elevation: float) -> Points:
    """(3,) the point on a lid's edge at this elevation, at the same position across the eye as `near`."""
    radius = EYE_RADIUS + LID_THICKNESS
    c, s = np.cos(EYE_TILT), np.sin(EYE_TILT)
    across = c * (side * near[0] - EYE_X) + s * (near[1] - EYE_Y)
    across = float(np.clip(across, -0.97 * radius, 0.97 * radius))
    forward = np.sqrt(radius**2 - across**2)
    y, z = forward * np.sin(elevation), forward * np.cos(elevation)
    return np.array([side * (EYE_X + c * across - s * y), EYE_Y + s * across + c * y, EYE_Z + z])


@njit(parallel=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _traced(wanted: NDArray[np.uint8], samples: int, size: int, pose: Pose, groom: Groom) -> tuple[Picture, Picture]:
    """Light (size, size, 3) and materials' shares (size, size, 9) of the crop's wanted pixels (size, size)."""
    light, shares = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 9), np.float32)
    weight = np.float32(1.0 / (samples * samples))
    for row in prange(size):
        for column in range(size):
            if wanted[row, column] == 0:
                continue
            for s in range(samples * samples):
                px = CROP_X + (column + (s % samples + 0.5) / samples) * CROP_SIZE / size
                py = CROP_Y + (row + (s // samples + 0.5) / samples) * CROP_SIZE / size
                ray = unit(((px - CENTRE_X) / PIXELS_PER_UNIT, (CENTRE_Y - py) / PIXELS_PER_UNIT, FOCUS_Z - DISTANCE))
                t, material, clump = follow(ray, pose, groom)
                if t > 0:
                    at = (ray[0] * t, LOOK_Y + ray[1] * t, DISTANCE + ray[2] * t)
                    lit = shade(at, ray, material, clump, pose, groom)
                    for channel in range(3):
                        light[row, column, channel] += weight * min(lit[channel], 4.0)
                    shares[row, column, material] += weight
    return light, shares


def trace(pose: Pose, groom: Groom, size: int) -> Traced:
    """Trace one frame of the crop: one ray per pixel, and four where neighbouring pixels differ."""
    light, shares = _traced(np.ones((size, size), np.uint8), 1, size, pose, groom)
    rough = np.zeros((size, size), np.uint8)
    for plane, tolerated in ((np.sqrt(light.mean(axis=2)), 0.10), (shares.sum(axis=2), 0.0)):
        contrast = cv2.dilate(plane, np.ones((3, 3))) - cv2.erode(plane, np.ones((3, 3)))
        rough |= (contrast > tolerated).astype(np.uint8)
    finer, finer_shares = _traced(rough, 2, size, pose, groom)
    edge = rough[..., None] > 0
    return Traced(np.where(edge, finer, light), np.where(edge, finer_shares, shares), landmarks_in(pose))


def drawn_sequences(
    identities: int, frames: int, size: int, seed: int, traced_size: int | None = None
) -> Iterator[LabelledSequence]:
    """Sequences of `identities` characters. Groups of CHARACTERS_PER_TRACE share hair, poses and expressions.

    traced_size: the side at which frames are traced before they are scaled to `size`; smaller is faster and less sharp.
    """
    for first in range(0, identities, CHARACTERS_PER_TRACE):
        rng = np.random.default_rng((seed, first))
        groom = _groom(rng)
        traced = [trace(pose, groom, traced_size or size) for pose in _poses(rng, frames)]
        for _ in range(min(CHARACTERS_PER_TRACE, identities - first)):
            yield _character(rng, traced, size)


def _groom(rng: np.random.Generator) -> Groom:
    """Hair of random length and thickness, and brows of random height and weight."""
    groom = make_groom(int(rng.integers(1000)))
    strands, brow = groom.strands.copy(), groom.brow.copy()
    hanging = strands[..., 1] < 0.1
    length = rng.uniform(0.25, 1.9)
    strands[..., 1] = np.where(hanging, 0.1 + (strands[..., 1] - 0.1) * length, strands[..., 1])
    strands[..., 0] *= 1 + rng.uniform(-0.02, 0.12) * np.clip(0.6 - strands[..., 1], 0, 1)
    strands[..., 3] *= rng.uniform(0.85, 1.2)
    brow[:, 1] += rng.normal(0, 0.012)
    brow[:, 3] *= rng.uniform(0.7, 1.5)
    points, radii = strands[..., :3], strands[..., 3]
    centres = (points.min(axis=1) + points.max(axis=1)) / 2
    reach = (np.linalg.norm(points - centres[:, None], axis=2) + radii).max(axis=1)
    return Groom(strands, np.column_stack([centres, reach]), brow)


def _poses(rng: np.random.Generator, frames: int) -> list[Pose]:
    """Random poses; the first is close to rest."""
    poses = [Pose(*rng.normal(0, 0.03, 3))]
    for _ in range(frames - 1):
        yaw, pitch, roll = np.clip(rng.normal(0, (0.24, 0.11, 0.11)), (-0.5, -0.28, -0.3), (0.5, 0.28, 0.3))
        mouth = float(rng.choice([0.0, rng.uniform(0, 1), rng.uniform(0.3, 1)]))
        left, right = 0.0, 0.0
        if rng.random() < 0.35:
            left = right = float(rng.choice([0.5, 1.0, rng.uniform(0, 1)]))
        elif rng.random() < 0.1:
            left, right = (1.0, 0.0) if rng.random() < 0.5 else (0.0, 1.0)
        poses.append(Pose(float(yaw), float(pitch), float(roll), mouth, left, right))
    return poses


def _character(rng: np.random.Generator, traced: list[Traced], size: int) -> LabelledSequence:
    """The traced frames with random colours, backdrop and proportions, mirrored in half of the cases."""
    factors = _factors(rng)
    iris = rng.uniform(0.4, 1.8, 3)
    side = len(traced[0].light)
    behind = _behind(rng, side)
    mirrored = rng.random() < 0.5
    squeeze = np.array([rng.uniform(0.92, 1.07), rng.uniform(0.95, 1.05)])
    faces = [_placed(frame.landmarks, side, squeeze, mirrored) for frame in traced]
    box = shaken(rng, framing(faces))
    film = Film(rng)
    pictures = []
    for frame in traced:
        tinted = frame.light * (frame.shares @ factors + (1 - frame.shares.sum(axis=2, keepdims=True)))
        brightest = tinted.max(axis=2, keepdims=True)
        vivid = 1 - tinted.min(axis=2, keepdims=True) / (brightest + 1e-4)
        tinted *= 1 + frame.shares[..., [Material.EYE]] * np.clip(1.6 * vivid - 0.5, 0, 1) * (iris - 1)
        light = tinted + behind * (1 - frame.shares.sum(axis=2, keepdims=True))
        picture = developed(light.astype(np.float32))
        pictures.append(film.develop(_reframed(picture[:, ::-1] if mirrored else picture, box, squeeze, size)))
    return labelled(pictures, [box.to_crop(face) for face in faces])


def _placed(landmarks: Points, size: int, squeeze: Points, mirrored: bool) -> Points:
    """Convert landmarks (478, 2) from the sculpture's picture to pixels of the squeezed crop."""
    placed = (landmarks - (CROP_X, CROP_Y)) * (size / CROP_SIZE)
    if mirrored:
        swapped = _landmark_points()[1]
        placed = placed.copy()
        placed[: len(swapped)] = (size, 0) + placed[swapped] * (-1, 1)
    return np.asarray(placed * squeeze)


def _reframed(picture: NDArray[np.uint8], box: CropSquare, squeeze: Points, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) the box of the squeezed picture. Outside the picture its border is repeated."""
    scale = size / box.size
    across, down = squeeze * scale
    matrix = np.array(
        [[across, 0, 0.5 * across - box.x * scale - 0.5], [0, down, 0.5 * down - box.y * scale - 0.5]], np.float64
    )
    moved = cv2.warpAffine(
        np.ascontiguousarray(picture), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def _factors(rng: np.random.Generator) -> Picture:
    """(9, 3) the factor for each material's light."""
    factors = np.ones((9, 3), np.float32)
    colours = paint.complexion(rng)
    skin, hair = (np.power(np.asarray(c) / 255, 2.2) for c in (colours.skin, colours.hair))
    if rng.random() < 0.12:  # unnatural skin, as of a fairy or a robot
        skin = rng.uniform(0.15, 0.8, 3)
    if rng.random() < 0.25:
        hair = rng.uniform(0.02, 0.6, 3) ** 1.5
    factors[Material.SKIN] = np.clip(skin / _SKIN, 0.08, 1.9)
    factors[Material.HAIR] = np.clip(hair / _HAIR, 0.15, 5.0)
    factors[Material.BROW] = np.clip(factors[Material.HAIR], 0.3, 2.5)
    factors[Material.JACKET] = np.clip(rng.uniform(0.02, 0.7, 3) / _JACKET, 0, 12)
    factors[Material.SHIRT] = rng.uniform(0.05, 1.2, 3) if rng.random() < 0.5 else rng.uniform(0.05, 1.2)
    return factors


def _behind(rng: np.random.Generator, size: int) -> Picture:
    """(size, size, 3) linear light of the background: part of the sculpture's room, or a random background."""
    if rng.random() < 0.6:
        return np.power(paint.background(rng, size).astype(np.float32) / 255, 2.2)
    room = backdrop(int(rng.integers(1000)))
    left = int(rng.integers(0, room.shape[1] - CROP_SIZE))
    part = room[CROP_Y : CROP_Y + CROP_SIZE, left : left + CROP_SIZE]
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA), np.float32)
