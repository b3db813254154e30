"""The `warp` generator: first-order motion without learned parts (FOMM, Siarohin et al. 2019, eq. 4).

Each pixel z of the frame is read from the avatar at T(z). T is a chain of three maps. None of them folds the picture,
so the chain does not fold it either:

1. head: one affine motion of the whole head, fitted to all keypoints, fading to the identity at the crop's border;
2. jaw: if the lips open wider than the avatar's, the part of the face below the line between the lips moves down, and
   the inside of a mouth is painted into the gap, because no warp of a closed mouth could show it;
3. features: the additional motion of each keypoint, T_k(z) = p_k + A_k (z - q_k), blended by Gaussian weights.

A map is injective on a convex domain if the symmetric part of its derivative is positive definite. Maps 1 and 3 are
scaled down if the smallest eigenvalue of that part would fall below MIN_SLOPE. So impossible motions degrade towards
stillness.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.layout import Mouth, Reach, find_mouth, reach_of
from mien_shared.keypoints import FaceKeypoint, FloatArray, Keypoints

#: Smallest stretch of the head's and the features' maps in any direction. Below 0 a picture would fold over itself.
MIN_SLOPE = 0.25

#: The head's map has full strength inside this frame and is the identity at the crop's border. On most pictures hair
#: reaches that border: a long ramp above the brows bends it, a short ramp would tear it.
_HEAD_SIDE = 0.50
_HEAD_TOP = -0.50
_HEAD_BELOW_CHIN = 0.04
_HEAD_BOTTOM_MAX = 0.65

#: Limits of the head's affine motion: rotation in radians, log of the stretch, translation in halves of the crop.
_MAX_ROTATION = 0.6
_MAX_LOG_STRETCH = 0.35
_MAX_TRANSLATION = 0.16
#: A keypoint at this distance from the fitted head motion has half its weight in the fit (crop coordinates).
_FIT_TOLERANCE = 0.04
#: Strength of the fit's prior for a rigid motion, in units of the keypoints' weighted variance.
_FIT_PRIOR = 0.02

#: Limits of a keypoint's linear part A_k M^-1 - 1: stretch, shear, and how far its slope may fall below 1.
_MAX_LINEAR = 12.0
_MAX_SHEAR = 0.5
_MAX_FALL = 2 / 3

#: Side of the coarse grid on which the head's map is computed; the map is smooth between its points.
_GRID = 48
#: The features' displacement is smooth, so it is computed only at every second pixel.
_FEATURE_STRIDE = 2


#: Number of crop sizes for which a thread keeps its workspace (13 MB at 640 pixels). Most avatars have the same size.
_MAX_WORKSPACES = 6

#: Colours of the inside of a mouth in the light of a studio portrait.
_THROAT_RGB = np.array([52, 20, 22], np.float32)
_TONGUE_RGB = np.array([122, 52, 54], np.float32)
_TEETH_RGB = np.array([196, 182, 172], np.float32)


class AvatarShapeError(ValueError):
    """An avatar crop is not a square RGB picture."""


@dataclass(frozen=True, slots=True)
class WarpFace:
    """A prepared avatar: its crop, the reach of each keypoint, and the line between the lips.

    axis: (G,) coordinates of the coarse grid. window: (G, G) weight of the head's motion there. window_limits: the
    frame of full strength (left, top, right, bottom) from which the window was computed. shade: brightness of the face
    around the mouth, about 1.
    """

    rgb: RgbArray
    source: Keypoints
    reach: Reach
    mouth: Mouth | None
    axis: FloatArray
    window: FloatArray
    window_limits: tuple[float, float, float, float]
    shade: float

    @property
    def size(self) -> int:
        return int(self.rgb.shape[0])


@dataclass(frozen=True, slots=True)
class _Gap:
    """The inside of the mouth in one frame: a rectangle of the face, and how much of each pixel is covered."""

    rows: slice
    columns: slice
    cover: FloatArray  # (h, w) 0..1
    depth: FloatArray  # (h, w) below the upper lip, in half widths of the mouth
    across: FloatArray  # (h, w) -1 at the left corner, 1 at the right


class Workspace:
    """Working memory for one face of `size` pixels. It is reused, because fresh pages cost more than the arithmetic."""

    def __init__(self, size: int) -> None:
        self.axis = np.linspace(-1, 1, math.ceil(size / _FEATURE_STRIDE), dtype=np.float32)
        self.grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float32)
        self.flow = np.empty((size, size, 2), np.float32)
        self.lookup = np.empty((size, size, 2), np.float32)
        self.moved = np.empty((size, size, 2), np.float32)
        self.displacement = np.empty((len(self.axis), len(self.axis), 2), np.float32)


class _KeptWorkspaces(threading.local):
    """The workspaces of each thread, most recently used last."""

    def __init__(self) -> None:
        self.workspaces: dict[int, Workspace] = {}

    def of_size(self, size: int) -> Workspace:
        workspace = self.workspaces.pop(size, None) or Workspace(size)
        self.workspaces[size] = workspace
        if len(self.workspaces) > _MAX_WORKSPACES:
            del self.workspaces[next(iter(self.workspaces))]
        return workspace


class WarpGenerator:
    """Makes faces by moving the avatar's pixels. Needs no weights and one CPU core; the fallback below the network."""

    name = "warp"

    def __init__(self) -> None:
        self._kept = _KeptWorkspaces()

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        """Analyse the avatar's keypoints and lips once. Raises AvatarShapeError unless rgb is (S, S, 3), S >= 32."""
        shape = avatar.rgb.shape
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or shape[0] < 32:
            raise AvatarShapeError(f"an avatar's face crop must be (S, S, 3) with S >= 32, not {shape}")
        points = avatar.keypoints.points
        mouth = find_mouth(avatar.rgb, points)
        lowest = float(points[:, 1].max())
        limits = (-_HEAD_SIDE, _HEAD_TOP, _HEAD_SIDE, float(np.clip(lowest + _HEAD_BELOW_CHIN, 0.3, _HEAD_BOTTOM_MAX)))
        # The positions of the samples when cv2.resize enlarges a picture from _GRID to S.
        axis = ((np.arange(_GRID) + 0.5) / _GRID * shape[0] - 0.5) * 2 / (shape[0] - 1) - 1
        rows, columns = _ramp(axis, limits[1], limits[3]), _ramp(axis, limits[0], limits[2])
        for ramp in (rows, columns):  # cv2.resize repeats the outermost samples to the border, which must not move
            ramp[[0, -1]] = 0
        return WarpFace(
            np.ascontiguousarray(avatar.rgb),
            avatar.keypoints,
            reach_of(points),
            mouth,
            axis.astype(np.float32),
            np.outer(rows, columns),
            limits,
            _skin_shade(avatar.rgb, mouth),
        )

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        """One face for each request. If a motion is not finite, the face is the avatar at rest. Thread-safe."""
        return [self._animate_one(request.prepared, request.driving) for request in requests]

    def close(self) -> None:
        """Free the workspaces of the calling thread; those of another thread are freed when it ends."""
        self._kept.workspaces.clear()

    def _animate_one(self, face: WarpFace, driving: Keypoints) -> RgbArray:
        flow, gap = backward_map(face, driving, self._kept.of_size(face.size))
        picture: RgbArray = cv2.remap(face.rgb, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if gap is not None:
            _paint_mouth(picture, gap, face)
        return picture


def backward_map(face: WarpFace, driving: Keypoints, workspace: Workspace) -> tuple[FloatArray, _Gap | None]:
    """The position in the avatar for each pixel of the frame, (S, S, 2) float32 pixels (x, y), and the open mouth.

    The map is stored in `workspace` and valid until its next use. For every motion the outermost pixels map to
    themselves, and the map does not fold.
    """
    if not (np.isfinite(driving.points).all() and np.isfinite(driving.jacobians).all()):
        driving = face.source
    head, driving = _fit_head(face, driving)
    flow = _head_map(face, head, workspace)
    at = _apply_head(face, head, driving.points)
    shift, linear = _feature_motion(face, head, driving, at)
    gap = None
    if face.mouth is not None:
        shift, opening = _split_opening(face, shift)
        if opening > 0:
            upper = shift[FaceKeypoint.UPPER_LIP]
            gap = _open_mouth(face, face.mouth, head, flow, upper_shift=upper, opening=opening)
    _add_features(face, workspace, shift, linear)
    return flow, gap


# --- the head ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Head:
    """The head's affine map z -> matrix z + offset, from the frame to the avatar. The window fades it at the border."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]


def _fit_head(face: WarpFace, driving: Keypoints) -> tuple[_Head, Keypoints]:
    """The head's limited motion, and the driving keypoints adapted to it.

    The motion is a robust weighted least-squares fit of frame -> avatar over all keypoints, then limited. If the limits
    reduce it, the driving keypoints move to the positions that they would have with the reduced head motion.
    """
    source = face.source.points.astype(np.float64)
    target = driving.points.astype(np.float64)
    weights = face.reach.rigidity.astype(np.float64)
    fitted, fitted_offset = _fit_affine(target, source, weights)
    for _ in range(2):  # reweight, so that a lip or a brow that moves alone does not move the head
        miss = np.linalg.norm(target @ fitted.T + fitted_offset - source, axis=1)
        fitted, fitted_offset = _fit_affine(target, source, weights / (1 + (miss / _FIT_TOLERANCE) ** 2))
    # The limits apply about the face's centre, where head motion is small, and not about the crop's centre.
    centre = source.mean(axis=0)
    matrix = _limit_matrix(fitted)
    offset = centre + _soften(fitted @ centre + fitted_offset - centre, _MAX_TRANSLATION) - matrix @ centre
    axis = face.axis
    dx = (matrix[0, 0] - 1) * axis[None, :] + matrix[0, 1] * axis[:, None] + offset[0]
    dy = matrix[1, 0] * axis[None, :] + (matrix[1, 1] - 1) * axis[:, None] + offset[1]
    strength = _fold_limit(face.window * dx, face.window * dy, float(axis[1] - axis[0]))
    matrix, offset = np.eye(2) + strength * (matrix - np.eye(2)), strength * offset
    back = np.linalg.inv(matrix)
    points = (target @ fitted.T + fitted_offset - offset) @ back.T
    jacobians = back @ fitted @ driving.jacobians
    return _Head(matrix, offset), Keypoints(points.astype(np.float32), jacobians.astype(np.float32))


def _fit_affine(
    target: NDArray[np.float64], source: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted least squares of source = matrix target + offset, with a small prior for a rigid motion."""
    weights = weights / weights.sum()
    middle_t, middle_s = weights @ target, weights @ source
    t, s = target - middle_t, source - middle_s
    moment = (weights[:, None] * t).T @ t
    cross = (weights[:, None] * s).T @ t
    spread = _FIT_PRIOR * (weights @ (s**2).sum(axis=1)) + 1e-6
    angle = math.atan2(cross[1, 0] - cross[0, 1], cross[0, 0] + cross[1, 1])
    rigid = _rotation(angle)
    matrix = (cross + spread * rigid) @ np.linalg.inv(moment + spread * np.eye(2))
    return matrix, middle_s - matrix @ middle_t


def _limit_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix with limited rotation and stretch. The result never mirrors and is never singular."""
    angle = math.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    stretch = _rotation(-angle) @ matrix
    values, vectors = np.linalg.eigh(0.5 * (stretch + stretch.T))
    logs = np.log(np.maximum(values, 1e-3))
    limited = np.exp(_MAX_LOG_STRETCH * np.tanh(logs / _MAX_LOG_STRETCH))
    rotation = _rotation(_MAX_ROTATION * math.tanh(angle / _MAX_ROTATION))
    limited_matrix: NDArray[np.float64] = rotation @ (vectors * limited) @ vectors.T
    return limited_matrix


def _rotation(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _head_map(face: WarpFace, head: _Head, workspace: Workspace) -> FloatArray:
    """The head's map as (S, S, 2) pixels. Its displacement is computed on the coarse grid and then enlarged."""
    axis, weight = face.axis, face.window * np.float32(0.5 * (face.size - 1))
    matrix, offset = head.matrix.astype(np.float32), head.offset.astype(np.float32)
    coarse = np.empty((_GRID, _GRID, 2), np.float32)
    coarse[..., 0] = weight * ((matrix[0, 0] - 1) * axis[None, :] + matrix[0, 1] * axis[:, None] + offset[0])
    coarse[..., 1] = weight * (matrix[1, 0] * axis[None, :] + (matrix[1, 1] - 1) * axis[:, None] + offset[1])
    cv2.resize(coarse, (face.size, face.size), dst=workspace.moved, interpolation=cv2.INTER_LINEAR)
    return np.add(workspace.moved, workspace.grid, out=workspace.flow)


def _apply_head(face: WarpFace, head: _Head, points: FloatArray) -> FloatArray:
    """The head's map applied to points (N, 2), crop coordinates."""
    left, top, right, bottom = face.window_limits
    weight = _ramp(points[:, 0], left, right) * _ramp(points[:, 1], top, bottom)
    moved = points @ head.matrix.T + head.offset
    return (points + weight[:, None] * (moved - points)).astype(np.float32)


# --- the features -----------------------------------------------------------------------------------------------------


def _feature_motion(face: WarpFace, head: _Head, driving: Keypoints, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Motion of each keypoint in addition to the head: shift (10, 2) = p_k - q_k, linear (10, 2, 2) = A_k M^-1 - 1."""
    limit = 0.95 * face.reach.sigma.min(axis=1)
    shift = _soften(face.source.points - at, limit[:, None])
    ratio = face.source.jacobians @ _safe_inverse(driving.jacobians)
    linear = ratio @ np.linalg.inv(head.matrix) - np.eye(2)
    # The inverse Jacobian of a closing eye magnifies shear together with height, but the limits below treat the two
    # separately: undo the magnification of the shear.
    diagonal = linear[:, [0, 1], [0, 1]]
    magnified = 1 + np.maximum(diagonal.max(axis=1), 0)
    shears = linear[:, [0, 1], [1, 0]] / magnified[:, None]
    linear[:, [0, 1], [1, 0]] = np.clip(shears, -_MAX_SHEAR, _MAX_SHEAR)
    diagonal[:, 1] += np.maximum(1 + diagonal[:, 1], 1) ** face.reach.closing - np.maximum(1 + diagonal[:, 1], 1)
    linear[:, [0, 1], [0, 1]] = np.clip(diagonal, -_MAX_LINEAR, _MAX_LINEAR)
    # Limit the magnification of the neighbourhood: its symmetric part keeps a slope of at least a third.
    mean = 0.5 * (linear[:, 0, 0] + linear[:, 1, 1])
    half, shear = 0.5 * (linear[:, 0, 0] - linear[:, 1, 1]), 0.5 * (linear[:, 0, 1] + linear[:, 1, 0])
    fall = np.sqrt(half * half + shear * shear) - mean
    linear *= np.minimum(1, _MAX_FALL / np.maximum(fall, 1e-6))[:, None, None]
    return shift.astype(np.float32), linear.astype(np.float32)


def _safe_inverse(jacobians: FloatArray) -> FloatArray:
    """Inverses of (10, 2, 2). A determinant counts as at least 0.02 times the square of the largest entry, and 1e-4."""
    a, b = jacobians[:, 0, 0], jacobians[:, 0, 1]
    c, d = jacobians[:, 1, 0], jacobians[:, 1, 1]
    size = np.maximum(np.abs(jacobians).max(axis=(1, 2)), 1e-3)
    determinant = np.maximum(a * d - b * c, np.maximum(0.02 * size * size, 1e-4))
    adjugate = np.stack([np.stack([d, -b], axis=1), np.stack([-c, a], axis=1)], axis=1)
    inverse: FloatArray = adjugate / determinant[:, None, None]
    return inverse


def _add_features(face: WarpFace, workspace: Workspace, shift: FloatArray, linear: FloatArray) -> None:
    """Apply the features' map to the workspace's flow, in place.

    With axis-aligned Gaussians each term is a product of a function of x and a function of y. So the whole displacement
    is one matrix product of rank 20 for each direction.
    """
    if np.abs(shift).max() < 1e-4 and np.abs(linear).max() < 1e-3:
        return
    axis, displacement, flow = workspace.axis, workspace.displacement, workspace.flow
    centre = face.source.points - shift
    sigma, cap = face.reach.sigma, face.reach.stretch[:, None]
    dx, dy = axis[None] - centre[:, :1], axis[None] - centre[:, 1:]  # (10, n)
    border = _ramp(axis, -0.8, 0.8)
    gx = np.exp(-0.5 * (dx / sigma[:, :1]) ** 2)
    gy = np.exp(-0.5 * (dy / sigma[:, 1:]) ** 2)
    crowd = np.maximum(_outer_sum(gy, gx), 1)  # overlapping keypoints share their weight, as in FOMM's softmax
    gx *= border
    gy *= border
    for i in (0, 1):
        along_x = shift[:, i : i + 1] + cap * np.tanh(linear[:, i, :1] * dx / cap)
        along_y = cap * np.tanh(linear[:, i, 1:] * dy / cap)
        field = _outer_sum(np.concatenate([gy, along_y * gy]), np.concatenate([along_x * gx, gx]))
        np.divide(field, crowd, out=displacement[..., i])
    strength = _fold_limit(displacement[..., 0], displacement[..., 1], float(axis[1] - axis[0]))
    displacement *= np.float32(0.5 * (face.size - 1) * strength)
    np.multiply(flow, np.float32((len(axis) - 1) / (face.size - 1)), out=workspace.lookup)
    flow += cv2.remap(
        displacement, workspace.lookup, None, cv2.INTER_LINEAR, dst=workspace.moved, borderMode=cv2.BORDER_REPLICATE
    )


# --- the mouth --------------------------------------------------------------------------------------------------------


def _split_opening(face: WarpFace, shift: FloatArray) -> tuple[FloatArray, float]:
    """Split the opening of the lips off the lower lip's shift: the remaining shift, and the opening (crop, >= 0)."""
    upper, lower = FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP
    opening = float(shift[upper, 1] - shift[lower, 1])  # shifts point from the frame to the avatar
    if opening <= 0:
        return shift, 0.0
    rest = shift.copy()
    rest[lower, 1] = shift[upper, 1]
    room = float(face.source.points[FaceKeypoint.CHIN, 1] - face.source.points[lower, 1])
    return rest, float(_soften(np.array([opening]), max(0.6 * room, 0.02))[0])


def _open_mouth(
    face: WarpFace, mouth: Mouth, head: _Head, flow: FloatArray, *, upper_shift: FloatArray, opening: float
) -> _Gap | None:
    """Apply the jaw's map to `flow`, in place. Returns the gap between the lips, or None if it is outside the face."""
    scale = 0.5 * (face.size - 1)
    centre_x, centre_y = mouth.centre_x - float(upper_shift[0]), mouth.centre_y - float(upper_shift[1])
    chin_y = float(face.source.points[FaceKeypoint.CHIN, 1])
    reach_y = max(chin_y - mouth.centre_y, 1.5 * opening)
    # The rectangle of the frame that the jaw's map can change: the mouth's box through the inverse head motion.
    left, right = centre_x - mouth.half_width, centre_x + mouth.half_width
    rise = abs(mouth.tilt) + abs(mouth.bend)
    top, bottom = centre_y - rise, centre_y + rise + opening + reach_y
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
    back = (corners - head.offset) @ np.linalg.inv(head.matrix).T
    corners = np.concatenate([corners, back])  # where the window fades the head's motion, the box is between the two
    low = np.floor((corners.min(axis=0) + 1) * scale).astype(int) - 2
    high = np.ceil((corners.max(axis=0) + 1) * scale).astype(int) + 3
    low, high = np.clip(low, 1, face.size - 1), np.clip(high, 1, face.size - 1)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    part = flow[rows, columns]
    if part.size == 0:
        return None
    across = (part[..., 0] / scale - 1 - centre_x) / mouth.half_width
    profile = np.clip(1 - across**2, 0, 1)
    below = part[..., 1] / scale - 1 - (centre_y + mouth.tilt * across + mouth.bend * across**2)
    drop = opening * profile
    # Below the gap the jaw's displacement fades linearly. The slope of the map is 1 + drop / reach there: no fold.
    displacement = np.where(below < drop, np.clip(below, 0, None), drop * np.clip(1 - (below - drop) / reach_y, 0, 1))
    part[..., 1] -= displacement * np.where(profile > 0, 1, 0) * scale
    pixel = 1 / scale
    cover = np.clip((np.minimum(below, drop - below)) / (1.5 * pixel) + 0.5, 0, 1) * np.clip(drop / (3 * pixel), 0, 1)
    depth = below / mouth.half_width
    return _Gap(rows, columns, cover.astype(np.float32), depth.astype(np.float32), across.astype(np.float32))


def _paint_mouth(picture: RgbArray, gap: _Gap, face: WarpFace) -> None:
    """Paint the inside of a mouth into the gap, in place: dark throat, lighter tongue, upper teeth in the shadow."""
    part = picture[gap.rows, gap.columns]
    tongue = _smooth(gap.depth, 0.15, 0.65)[..., None] * _smooth(1 - np.abs(gap.across), 0.1, 0.6)[..., None]
    inside = _THROAT_RGB + tongue * (_TONGUE_RGB - _THROAT_RGB)
    if face.mouth is not None and face.mouth.closed:
        row = _smooth(gap.depth, -0.02, 0.09) * (1 - _smooth(gap.depth + 0.10 * gap.across**2, 0.13, 0.20))
        teeth = (0.8 * row * _smooth(1 - np.abs(gap.across), 0.12, 0.45))[..., None]
        inside = inside + teeth * (_TEETH_RGB - inside)
    part[...] = part + gap.cover[..., None] * (np.float32(face.shade) * inside - part) + np.float32(0.5)


def _skin_shade(rgb: RgbArray, mouth: Mouth | None) -> float:
    """Brightness of the face around the mouth, 0.3..1.2, so that the inside of the mouth matches the light."""
    if mouth is None:
        return 1.0
    scale = 0.5 * (rgb.shape[0] - 1)
    x, y, r = (mouth.centre_x + 1) * scale, (mouth.centre_y + 1) * scale, mouth.half_width * scale
    patch = rgb[max(0, int(y - r)) : int(y + r) + 1, max(0, int(x - r)) : int(x + r) + 1]
    return float(np.clip(np.median(patch) / 150, 0.3, 1.2)) if patch.size else 1.0


# --- shapes -----------------------------------------------------------------------------------------------------------


def _ramp(axis: NDArray[np.floating], low: float, high: float) -> FloatArray:
    """1 between low and high, falls smoothly to exactly 0 at -1 and 1."""
    outside = np.minimum((axis + 1) / (low + 1), (1 - axis) / (1 - high))
    t = np.clip(outside, 0, 1)
    ramp: FloatArray = (t * t * (3 - 2 * t)).astype(np.float32)
    return ramp


def _smooth(values: FloatArray, low: float, high: float) -> FloatArray:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    step: FloatArray = t * t * (3 - 2 * t)
    return step


def _soften(vectors: NDArray[np.float64] | FloatArray, limit: float | FloatArray) -> NDArray[np.float64]:
    """Vectors (..., 2) or (1,), smoothly shortened to stay below `limit`. Vectors up to half of it hardly change."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    softened: NDArray[np.float64] = vectors / (1 + (length / limit) ** 4) ** 0.25
    return softened


def _outer_sum(by_row: FloatArray, by_column: FloatArray) -> FloatArray:
    """(k, h), (k, w) -> (h, w), the sum of the k outer products.

    Uses cv2, because numpy's BLAS splits even this product among threads and waits for them: 15 ms if a core is busy.
    """
    total: FloatArray = cv2.gemm(np.ascontiguousarray(by_row.T), by_column, 1, None, 0)
    return total


def _fold_limit(dx: FloatArray, dy: FloatArray, step: float) -> float:
    """The largest factor, 0..1, for a displacement so that identity + displacement keeps MIN_SLOPE everywhere.

    dx, dy: (H, W) displacement, samples `step` apart. The slope is the smallest eigenvalue of the symmetric part of the
    derivative.
    """
    xx = np.diff(dx, axis=1)[:-1] / step
    yy = np.diff(dy, axis=0)[:, :-1] / step
    xy = 0.5 * (np.diff(dx, axis=0)[:, :-1] + np.diff(dy, axis=1)[:-1]) / step
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    fall = float((np.sqrt(half * half + xy * xy) - mean).max())
    return min(1.0, (1 - MIN_SLOPE) / fall) if fall > 0 else 1.0
