"""The features' motion of `warp`: each keypoint takes its neighbourhood along, T_k(z) = p_k + A_k (z - q_k).

The displacements of the ten keypoints are blended by Gaussian weights, as in FOMM's dense motion (eq. 4), and as there
at a lower resolution than the picture. With axis-aligned Gaussians each term is a product of a function of x and a
function of y. So the displacement of every place is one matrix product of rank 20 for each direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from mien_generator.face.curves import ramp, softening
from mien_generator.face.head import Box, Doubles, HeadModel, HeadMotion, Matrix, inverse, product, unfolding
from mien_generator.face.layout import Reach
from mien_shared.keypoints import FloatArray, Keypoints

#: Limits of a keypoint's linear part A_k M^-1 - 1: stretch, shear, and how far its slope may fall below 1.
_MAX_LINEAR = 12.0
_MAX_SHEAR = 0.5
_MAX_FALL = 2 / 3

#: A shift may be as long as this share of the keypoint's smaller sigma.
_SHIFT_SHARE = 0.95
#: The displacement is 0 at the crop's border and has full strength inside this frame.
_INNER = 0.8
#: Motion below these limits is not visible: the largest shift, and the largest entry of a linear part.
_STILL_SHIFT, _STILL_LINEAR = 1e-4, 1e-3
#: A linear part with a larger entry bends the picture within a few pixels, as a closing eye does.
_STEEP = 1.0
#: The reach of such a bend from its keypoint, in sigmas along x and y.
_STEEP_REACH = (2.5, 1.0)
#: Exponents of Gaussian weights are cut off below. Products of smaller weights would be denormal numbers, with which a
#: processor is ten times slower.
_FAINTEST = -20.0


class Feature(NamedTuple):
    """The motion of one keypoint in addition to the head's.

    x, y: q_k. shift_x, shift_y: p_k - q_k. linear: A_k M^-1 - 1. Crop coordinates, behind the head's map.
    """

    x: float
    y: float
    shift_x: float
    shift_y: float
    linear: Matrix


class FeatureSpace:
    """Working memory for the displacement on a grid of n x n places.

    The products of matrices are numpy's: they take a fifth of cv2.gemm's time. Its BLAS must run one thread, see
    `mien_generator/__init__.py`: with more it waits for them.
    """

    def __init__(self, n: int) -> None:
        self.left = np.empty((2, 20, n), np.float32)
        self.right = np.empty((2, 20, n), np.float32)
        self.crowd = np.empty((n, n), np.float32)
        self.displacement = np.empty((2, n, n), np.float32)
        self.along_x = np.empty((2, n * (n - 1)), np.float32)
        self.along_y = np.empty((2, n * (n - 1)), np.float32)


@dataclass(frozen=True, slots=True)
class FeatureModel:
    """What the features' motion needs of an avatar, and the grid on which it is computed.

    points, jacobians: the avatar's. cap: (20, 1) largest displacement by a linear part, for x, then for y. exponent:
    (20, 1) of the Gaussian weights. axis: (n,) coordinates of the grid's rows and of its columns. border: (n,) 1
    inside, 0 at the outermost places.
    """

    points: list[list[float]]
    jacobians: list[Matrix]
    closing: list[float]
    sigma: list[list[float]]
    cap: FloatArray
    exponent: FloatArray
    axis: FloatArray
    border: FloatArray
    step: float

    @classmethod
    def of(cls, source: Keypoints, reach: Reach, axis: Doubles) -> FeatureModel:
        border = ramp(axis, -_INNER, _INNER)
        border[[0, -1]] = 0
        return cls(
            source.points.tolist(),
            _matrices(source),
            reach.closing.tolist(),
            reach.sigma.tolist(),
            np.tile(reach.stretch, 2)[:, None],
            (-0.5 / np.square(reach.sigma)).T.reshape(-1, 1).astype(np.float32),
            axis.astype(np.float32),
            border,
            float(axis[1] - axis[0]),
        )

    def motion(self, model: HeadModel, head: HeadMotion, driving: Keypoints) -> list[Feature]:
        """The motion of each keypoint."""
        back, carry = inverse(head.affine.matrix), head.follow.matrix
        features = []
        for k, ((x, y), jacobian) in enumerate(zip(driving.points.tolist(), _matrices(driving), strict=True)):
            at_x, at_y = model.moved(head, x, y)
            to_x, to_y = self.points[k]
            dx, dy = to_x - at_x, to_y - at_y
            soft = softening(dx * dx + dy * dy, _SHIFT_SHARE * min(self.sigma[k]))
            dx, dy = soft * dx, soft * dy
            ratio = product(product(self.jacobians[k], safe_inverse(product(carry, jacobian))), back)
            features.append(Feature(to_x - dx, to_y - dy, dx, dy, limited_linear(ratio, self.closing[k])))
        return features

    def steep(self, features: Sequence[Feature]) -> list[Box]:
        """Where the displacement bends too sharply for the grid, behind the head's map."""
        boxes: list[Box] = []
        for feature, (sigma_x, sigma_y) in zip(features, self.sigma, strict=True):
            if max(feature.linear) > _STEEP or min(feature.linear) < -_STEEP:
                (x, y), (reach_x, reach_y) = feature[:2], (_STEEP_REACH[0] * sigma_x, _STEEP_REACH[1] * sigma_y)
                boxes.append((x - reach_x, y - reach_y, x + reach_x, y + reach_y))
        return boxes

    def displacement(self, features: Sequence[Feature], space: FeatureSpace) -> FloatArray | None:
        """The displacement (2, n, n) of the places on the grid, crop coordinates; None if it is not visible."""
        if all(map(_is_still, features)):
            return None
        x, y, shift_x, shift_y, linear = zip(*features, strict=True)
        away = self.axis - _column([x, y])  # rows 0..9 in x, 10..19 in y
        weights = np.multiply(away, away)
        weights *= self.exponent
        np.exp(np.maximum(weights, _FAINTEST, out=weights), out=weights)
        gx, gy = weights[:10], weights[10:]
        # Overlapping keypoints share their weight, as in FOMM's softmax.
        crowd = np.maximum(np.matmul(gy.T, gx, out=space.crowd), 1, out=space.crowd)
        weights *= self.border
        # (2, 20, n): for each direction its part along x, then along y. The entries of linear are xx, xy, yx, yy.
        along = (_column(zip(*linear, strict=True)).reshape(2, 20, 1) / self.cap) * away
        np.tanh(along, out=along)
        along *= self.cap
        along[:, :10] += _column([shift_x, shift_y]).reshape(2, 10, 1)
        along *= weights
        left, right = space.left, space.right
        left[:, :10], left[:, 10:] = gy, along[:, 10:]
        right[:, :10], right[:, 10:] = along[:, :10], gx
        moved = np.matmul(left.transpose(0, 2, 1), right, out=space.displacement)
        moved /= crowd
        strength = self._unfolding(moved, space)
        if strength < 1:
            moved *= np.float32(strength)
        return moved

    def _unfolding(self, displacement: FloatArray, space: FeatureSpace) -> float:
        """See `unfolding`. Differences of neighbours in memory: a row's last place and the next row's first are 0."""
        n = len(self.axis)
        flat = displacement.reshape(2, n * n)
        xx, yx = np.subtract(flat[:, 1 : n * n - n + 1], flat[:, : n * n - n], out=space.along_x)
        xy, yy = np.subtract(flat[:, n:], flat[:, :-n], out=space.along_y)
        return unfolding(xx, yy, np.add(xy, yx, out=xy), self.step)


def safe_inverse(jacobian: Matrix) -> Matrix:
    """The inverse; the determinant counts as at least 0.02 times the square of the largest entry, and 1e-4."""
    a, b, c, d = jacobian
    size = max(abs(a), abs(b), abs(c), abs(d), 1e-3)
    scale = 1 / max(a * d - b * c, 0.02 * size * size, 1e-4)
    return d * scale, -b * scale, -c * scale, a * scale


def limited_linear(ratio: Matrix, closing: float) -> Matrix:
    """A keypoint's linear part A_k M^-1 - 1 within its limits. closing: exponent of a vertical squeeze."""
    xx, xy, yx, yy = ratio[0] - 1, ratio[1], ratio[2], ratio[3] - 1
    # The inverse Jacobian of a closing eye magnifies shear together with height, but the limits below treat the two
    # separately: undo the magnification of the shear.
    magnified = 1 + max(xx, yy, 0)
    xy, yx = _within(xy / magnified, _MAX_SHEAR), _within(yx / magnified, _MAX_SHEAR)
    height = max(1 + yy, 1)
    xx, yy = _within(xx, _MAX_LINEAR), _within(yy + height**closing - height, _MAX_LINEAR)
    # Limit the magnification of the neighbourhood: its symmetric part keeps a slope of at least a third.
    fall = 0.5 * (math.hypot(xx - yy, xy + yx) - xx - yy)
    weakened = min(1, _MAX_FALL / max(fall, 1e-6))
    return weakened * xx, weakened * xy, weakened * yx, weakened * yy


def _is_still(feature: Feature) -> bool:
    return (
        max(abs(feature.shift_x), abs(feature.shift_y)) < _STILL_SHIFT
        and max(feature.linear) < _STILL_LINEAR
        and min(feature.linear) > -_STILL_LINEAR
    )


def _matrices(keypoints: Keypoints) -> list[Matrix]:
    return [(a, b, c, d) for a, b, c, d in keypoints.jacobians.reshape(-1, 4).tolist()]


def _within(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _column(rows: Iterable[Sequence[float]]) -> FloatArray:
    """The rows one after the other, (rows x 10, 1)."""
    return np.array([*chain.from_iterable(rows)], np.float32)[:, None]
