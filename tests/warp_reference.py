"""The maths of `warp`, slow and readable: every pixel by itself, in double precision, one equation after the other.

z is a place of the frame, crop coordinates. T(z) = F(J(H(z))) is the place in the avatar that it shows:

    H(z) = z + w(z) (M z + o - z)                                 the head, with the window w
    J(z) = z - (0, d(z))                                          the jaw
    F(z) = z + sum_k g_k(z) (s_k + c_k tanh(L_k (z - q_k) / c_k)) / max(sum_k g_k(z), 1)

with the Gaussian weights g_k (FOMM, Siarohin et al. 2019, eq. 4 and 5), the keypoints' shifts s_k = p_k - q_k and their
linear parts L_k = A_k M^-1 - 1, A_k = J_source,k J_driving,k^-1. The hyperbolic tangent keeps each displacement below
c_k. In each direction it limits the parts along x and along y separately.

The limits against folding are left out: the motions that are compared stay below them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien_generator.face.layout import Mouth, find_mouth, reach_of
from mien_shared.keypoints import FaceKeypoint, Keypoints

Doubles = NDArray[np.float64]


def reference_map(rgb: NDArray[np.uint8], source: Keypoints, driving: Keypoints) -> Doubles:
    """T(z) of every pixel, (S, S, 2) pixels."""
    size, reach = rgb.shape[0], reach_of(source.points)
    axis = np.linspace(-1, 1, size)
    z = np.stack(np.meshgrid(axis, axis), axis=-1)
    p, q = source.points.astype(float), driving.points.astype(float)
    fitted, fitted_offset = robust_fit(q, p, reach.rigidity.astype(float))
    matrix, offset = limited_head(fitted, fitted_offset, p.mean(axis=0))
    # If the limits reduce the head's motion, the driving keypoints follow the reduced one.
    back = np.linalg.inv(matrix)
    q = (q @ fitted.T + fitted_offset - offset) @ back.T
    bottom = float(np.clip(p[:, 1].max() + 0.04, 0.3, 0.65))
    q = head_map(q, matrix, offset, bottom)
    shift = soften(p - q, 0.95 * reach.sigma.min(axis=1)[:, None])
    linear = np.stack(
        [
            limited_part(a @ safe_inverse(back @ fitted @ b) @ back - np.eye(2), closing)
            for a, b, closing in zip(source.jacobians, driving.jacobians, reach.closing.astype(float), strict=True)
        ]
    )
    z = head_map(z, matrix, offset, bottom)
    mouth = find_mouth(rgb, source.points)
    if mouth is not None:
        upper, lower = FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP
        opening = shift[upper, 1] - shift[lower, 1]
        if opening > 0:
            shift[lower, 1] = shift[upper, 1]
            room = max(0.6 * (p[FaceKeypoint.CHIN, 1] - p[lower, 1]), 0.02)
            opening = float(soften(np.array([opening]), room)[0])
            z = jaw_map(z, mouth, shift[upper], opening, float(p[FaceKeypoint.CHIN, 1]))
    z = z + features(z, p - shift, shift, linear, reach.sigma.astype(float), reach.stretch.astype(float))
    moved: Doubles = (z + 1) * 0.5 * (size - 1)
    return moved


def robust_fit(target: Doubles, source: Doubles, rigidity: Doubles) -> tuple[Doubles, Doubles]:
    """source = M target + o by weighted least squares with a prior for a rotation; keypoints that miss weigh less."""
    weights = rigidity
    for _ in range(3):
        share = weights / weights.sum()
        t, s = target - share @ target, source - share @ source
        moment, cross = (share[:, None] * t).T @ t, (share[:, None] * s).T @ t
        spread = 0.02 * (share @ (s**2).sum(axis=1)) + 1e-6
        rigid = rotation(np.arctan2(cross[1, 0] - cross[0, 1], cross[0, 0] + cross[1, 1]))
        matrix = (cross + spread * rigid) @ np.linalg.inv(moment + spread * np.eye(2))
        offset = share @ source - matrix @ (share @ target)
        miss = np.linalg.norm(target @ matrix.T + offset - source, axis=1)
        weights = rigidity / (1 + (miss / 0.04) ** 2)
    return matrix, offset


def limited_head(matrix: Doubles, offset: Doubles, centre: Doubles) -> tuple[Doubles, Doubles]:
    """Rotation, stretch and translation about the face's centre, each softly limited."""
    angle = np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    stretch = rotation(-angle) @ matrix
    values, vectors = np.linalg.eigh((stretch + stretch.T) / 2)
    values = np.exp(0.35 * np.tanh(np.log(np.maximum(values, 1e-3)) / 0.35))
    limited = rotation(0.6 * np.tanh(angle / 0.6)) @ (vectors * values) @ vectors.T
    return limited, centre + soften(matrix @ centre + offset - centre, 0.16) - limited @ centre


def head_map(z: Doubles, matrix: Doubles, offset: Doubles, bottom: float) -> Doubles:
    window = ramp(z[..., 0], -0.5, 0.5) * ramp(z[..., 1], -0.5, bottom)
    moved: Doubles = z + window[..., None] * (z @ matrix.T + offset - z)
    return moved


def jaw_map(z: Doubles, mouth: Mouth, upper_shift: Doubles, opening: float, chin_y: float) -> Doubles:
    """Below the line between the lips, places come from above: by their depth in the gap, then fading."""
    u = (z[..., 0] - mouth.centre_x + upper_shift[0]) / mouth.half_width
    depth = z[..., 1] - mouth.centre_y + upper_shift[1] - (mouth.tilt * u + mouth.bend * u**2)
    drop = opening * np.clip(1 - u**2, 0, None)
    reach = max(chin_y - mouth.centre_y, 1.5 * opening)
    fading = drop * np.clip(1 - (depth - drop) / reach, 0, 1)
    moved = z.copy()
    moved[..., 1] -= np.where(depth < drop, np.clip(depth, 0, None), fading)
    return moved


def features(z: Doubles, q: Doubles, shift: Doubles, linear: Doubles, sigma: Doubles, cap: Doubles) -> Doubles:
    total, crowd = np.zeros_like(z), np.zeros(z.shape[:-1])
    for k in range(len(q)):
        away = z - q[k]
        weight = np.exp(-0.5 * ((away / sigma[k]) ** 2).sum(axis=-1))
        crowd += weight
        bent = cap[k] * np.tanh(linear[k] * away[..., None, :] / cap[k])  # (..., direction, along x or y)
        total += weight[..., None] * (shift[k] + bent.sum(axis=-1))
    border = ramp(z[..., 0], -0.8, 0.8) * ramp(z[..., 1], -0.8, 0.8)
    moved: Doubles = total * (border / np.maximum(crowd, 1))[..., None]
    return moved


def safe_inverse(jacobian: Doubles) -> Doubles:
    (a, b), (c, d) = jacobian
    size = max(np.abs(jacobian).max(), 1e-3)
    inverse: Doubles = np.array([[d, -b], [-c, a]]) / max(a * d - b * c, 0.02 * size**2, 1e-4)
    return inverse


def limited_part(linear: Doubles, closing: float) -> Doubles:
    """Shear as if the keypoint were not magnified, a squeeze exaggerated, and no slope below a third."""
    (xx, xy), (yx, yy) = linear
    magnified = 1 + max(xx, yy, 0)
    xy, yx = np.clip(np.array([xy, yx]) / magnified, -0.5, 0.5)
    yy += max(1 + yy, 1) ** closing - max(1 + yy, 1)
    part = np.array([[np.clip(xx, -12, 12), xy], [yx, np.clip(yy, -12, 12)]])
    fall = -float(np.linalg.eigvalsh((part + part.T) / 2).min())
    limited: Doubles = part * min(1.0, 2 / 3 / max(fall, 1e-6))
    return limited


def soften(vectors: Doubles, limit: float | Doubles) -> Doubles:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    softened: Doubles = vectors / (1 + (length / limit) ** 4) ** 0.25
    return softened


def ramp(v: Doubles, low: float, high: float) -> Doubles:
    t = np.clip(np.minimum((v + 1) / (low + 1), (1 - v) / (1 - high)), 0, 1)
    smooth: Doubles = t * t * (3 - 2 * t)
    return smooth


def rotation(angle: float) -> Doubles:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
