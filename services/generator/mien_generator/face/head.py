"""The head's motion of `warp`: one affine map of the whole head, which fades to the identity at the crop's border.

With the affine map z -> M z + o and the window w(x) w(y), the head's map is H(z) = z + w(x) w(y) ((M - 1) z + o). So
each coordinate of H is a bilinear form of a vector that depends on y alone and one that depends on x alone:

    H_i(x, y) = l(y) . C_i r(x),  l(y) = (w(y), w(y) y, 1, y),  r(x) = (w(x), w(x) x, 1, x)

The vectors are computed once per avatar (`Samples`). A frame changes only the two 4x4 matrices C_i, and one product of
matrices gives the map of every pixel. Single numbers and single keypoints are Python floats: a call of numpy takes as
long as thirty operations on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.curves import fade, ramp, softening
from mien_shared.keypoints import FloatArray, Keypoints

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
#: Number of fits with new weights, so that a lip or a brow that moves alone does not move the head.
_REFITS = 2
#: Strength of the fit's prior for a rigid motion, in units of the keypoints' weighted variance.
_FIT_PRIOR = 0.02

#: Side of the coarse grid on which the slope of the head's map is checked; the map is smooth between its points.
_GRID = 48

Doubles = NDArray[np.float64]
#: Rows of a 2x2 matrix.
Matrix = tuple[float, float, float, float]
#: Left, top, right, bottom; crop coordinates.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Affine:
    """The map z -> matrix z + offset. matrix: m00, m01, m10, m11."""

    matrix: Matrix
    offset: tuple[float, float]

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        (a, b, c, d), (e, f) = self.matrix, self.offset
        return a * x + b * y + e, c * x + d * y + f

    def coefficients(self, scale: tuple[float, float] = (1, 1), shift: tuple[float, float] = (0, 0)) -> FloatArray:
        """The matrices C_i, (2, 4, 4), of the head's map times `scale` plus `shift`, for each coordinate."""
        (a, b, c, d), (x, y) = self.matrix, self.offset
        s, t = scale
        return np.array(
            [
                [[s * x, s * (a - 1), 0, 0], [s * b, 0, 0, 0], [0, 0, shift[0], s], [0, 0, 0, 0]],
                [[t * y, t * c, 0, 0], [t * (d - 1), 0, 0, 0], [0, 0, shift[1], 0], [0, 0, t, 0]],
            ],
            np.float32,
        )


@dataclass(frozen=True, slots=True)
class Samples:
    """The vectors of the bilinear forms at the rows and the columns of a grid. rows: (h, 4). columns: (4, w)."""

    rows: FloatArray
    columns: FloatArray

    @classmethod
    def of(cls, axis: Doubles, limits: Box) -> Samples:
        """axis: (n,) coordinates of the rows and of the columns. The window is 0 at the outermost ones."""
        left, top, right, bottom = limits
        rows, columns = ramp(axis, top, bottom), ramp(axis, left, right)
        for window in (rows, columns):
            window[[0, -1]] = 0
        one = np.ones_like(axis)
        return cls(
            np.stack([rows, rows * axis, one, axis], axis=1).astype(np.float32),
            np.stack([columns, columns * axis, one, axis]).astype(np.float32),
        )

    def map(self, coefficients: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """The bilinear forms at every place of the grid: (k, 4, 4) -> (k, h, w)."""
        return np.matmul(self.rows, np.matmul(coefficients, self.columns), out=out)

    def part(self, rows: slice, columns: slice) -> Samples:
        return Samples(self.rows[rows], self.columns[:, columns])


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """The head's motion in one frame.

    affine: from the frame to the avatar, limited. fitted: not limited. follow: moves the driving keypoints so that they
    follow the head if the limits reduced its motion; from the frame to the frame.
    """

    affine: Affine
    fitted: Affine
    follow: Affine


@dataclass(frozen=True, slots=True)
class HeadModel:
    """What the head's motion needs of an avatar. limits: frame of full strength (left, top, right, bottom).

    monomials: (10, 5) rows 1, x, y of a driving keypoint (filled in per frame), then x, y of the avatar's.
    """

    limits: Box
    rigidity: Doubles
    monomials: Doubles
    centre: tuple[float, float]
    step: float
    samples: Samples
    column_slopes: FloatArray
    row_slopes: FloatArray

    @classmethod
    def of(cls, source: Keypoints, rigidity: FloatArray) -> HeadModel:
        points = source.points.astype(np.float64)
        bottom = min(max(float(points[:, 1].max()) + _HEAD_BELOW_CHIN, 0.3), _HEAD_BOTTOM_MAX)
        limits = (-_HEAD_SIDE, _HEAD_TOP, _HEAD_SIDE, bottom)
        monomials = np.concatenate([np.ones((len(points), 3)), points], axis=1)
        axis = np.linspace(-1, 1, _GRID)
        samples = Samples.of(axis, limits)
        return cls(
            limits,
            rigidity.astype(np.float64),
            monomials,
            (float(points[:, 0].mean()), float(points[:, 1].mean())),
            float(axis[1] - axis[0]),
            Samples(samples.rows[:-1, :2].copy(), samples.columns[:2, :-1].copy()),
            np.diff(samples.columns[:2], axis=1),
            np.diff(samples.rows[:, :2], axis=0),
        )

    def fit(self, driving: FloatArray) -> HeadMotion:
        """The motion of frame -> avatar that fits the driving keypoints (10, 2) best, limited."""
        monomials = self.monomials.copy()
        monomials[:, 1:3] = driving
        fitted = self._fitted(monomials)
        # The limits apply about the face's centre, where head motion is small, and not about the crop's centre.
        matrix = limited(fitted.matrix)
        (cx, cy), (fx, fy) = self.centre, fitted(*self.centre)
        soft = softening((fx - cx) ** 2 + (fy - cy) ** 2, _MAX_TRANSLATION)
        kx, ky = _times(matrix, self.centre)
        offset = (cx + soft * (fx - cx) - kx, cy + soft * (fy - cy) - ky)
        affine = self._unfolded(Affine(matrix, offset))
        back, (gx, gy), (ox, oy) = inverse(affine.matrix), fitted.offset, affine.offset
        follow = Affine(product(back, fitted.matrix), _times(back, (gx - ox, gy - oy)))
        return HeadMotion(affine, fitted, follow)

    def moved(self, motion: HeadMotion, x: float, y: float) -> tuple[float, float]:
        """Where the head's map takes a driving keypoint that follows the head."""
        left, top, right, bottom = self.limits
        at_x, at_y = motion.follow(x, y)
        moved_x, moved_y = motion.fitted(x, y)
        window = fade(at_x, left, right) * fade(at_y, top, bottom)
        return at_x + window * (moved_x - at_x), at_y + window * (moved_y - at_y)

    def _fitted(self, monomials: Doubles) -> Affine:
        """A robust weighted least-squares fit: the squared distance of a keypoint is a quadratic form of its monomials.

        So each fit needs only the weighted sums of the products of two monomials.
        """
        products = (monomials[:, :, None] * monomials[:, None, :]).reshape(-1, 25)
        fitted = fit_affine(self.rigidity @ products)
        for _ in range(_REFITS):
            (a, b, c, d), (x, y) = fitted.matrix, fitted.offset
            miss = np.array([[x, a, b, -1, 0], [y, c, d, 0, -1]])
            squared = products @ (miss.T @ miss).ravel()
            fitted = fit_affine((self.rigidity / (1 + squared * (1 / _FIT_TOLERANCE**2))) @ products)
        return fitted

    def _unfolded(self, affine: Affine) -> Affine:
        """The map, weakened if the windowed map would otherwise fall below MIN_SLOPE."""
        (a, b, c, d), (x, y) = affine.matrix, affine.offset
        forms = np.array([[[x, a - 1], [b, 0]], [[y, c], [d - 1, 0]]], np.float32)
        rows, columns = self.samples.rows, self.samples.columns
        (xx, yx), (xy, yy) = rows @ (forms @ self.column_slopes), self.row_slopes @ (forms @ columns)
        s = unfolding(xx, yy, xy + yx, self.step)
        if s == 1:
            return affine
        return Affine((1 + s * (a - 1), s * b, s * c, 1 + s * (d - 1)), (s * x, s * y))


def fit_affine(sums: Doubles) -> Affine:
    """Weighted least squares of source = matrix target + offset, with a small prior for a rigid motion.

    sums: (25,) weighted sums of the products of (1, target x, y, source x, y), row by row of a 5x5 matrix.
    """
    n, tx, ty, sx, sy, _, txx, txy, sxtx, sytx, _, _, tyy, sxty, syty, _, _, _, sxx, _, _, _, _, _, syy = sums.tolist()
    n = max(n, 1e-12)
    tx, ty, sx, sy = tx / n, ty / n, sx / n, sy / n
    c00, c01, c10, c11 = sxtx / n - sx * tx, sxty / n - sx * ty, sytx / n - sy * tx, syty / n - sy * ty
    spread = _FIT_PRIOR * max(0.0, sxx / n - sx * sx + syy / n - sy * sy) + 1e-6
    cos, sin = _rotation(math.atan2(c10 - c01, c00 + c11))
    m01 = txy / n - tx * ty
    moment = inverse((txx / n - tx * tx + spread, m01, m01, tyy / n - ty * ty + spread))
    cross = (c00 + spread * cos, c01 - spread * sin, c10 + spread * sin, c11 + spread * cos)
    matrix = product(cross, moment)
    mx, my = _times(matrix, (tx, ty))
    return Affine(matrix, (sx - mx, sy - my))


def limited(matrix: Matrix) -> Matrix:
    """The matrix with limited rotation and stretch. The result never mirrors and is never singular."""
    m00, m01, m10, m11 = matrix
    angle = math.atan2(m10 - m01, m00 + m11)
    cos, sin = _rotation(angle)
    # The symmetric part of the matrix without its rotation, and its two eigenvalues: middle + radius, middle - radius.
    a, d = cos * m00 + sin * m10, cos * m11 - sin * m01
    b = 0.5 * (cos * m01 + sin * m11 + cos * m10 - sin * m00)
    middle, half = 0.5 * (a + d), 0.5 * (a - d)
    radius = math.hypot(half, b)
    large, small = _limited_stretch(middle + radius), _limited_stretch(middle - radius)
    mean, ratio = 0.5 * (large + small), 0.5 * (large - small) / radius if radius > 1e-12 else 0.0
    stretch = (mean + ratio * half, ratio * b, ratio * b, mean - ratio * half)
    cos, sin = _rotation(_MAX_ROTATION * math.tanh(angle / _MAX_ROTATION))
    return product((cos, -sin, sin, cos), stretch)


def _limited_stretch(value: float) -> float:
    return math.exp(_MAX_LOG_STRETCH * math.tanh(math.log(max(value, 1e-3)) / _MAX_LOG_STRETCH))


def unfolding(xx: FloatArray, yy: FloatArray, twice_xy: FloatArray, step: float) -> float:
    """The largest factor, 0..1, for a displacement so that identity + displacement keeps MIN_SLOPE everywhere.

    xx, yy: differences of the displacement along its direction, samples `step` apart. twice_xy: the sum of the
    differences across. The slope is the smallest eigenvalue of the symmetric part of the derivative.
    """
    allowed = (1 - MIN_SLOPE) * step
    # The eigenvalue differs from the smaller diagonal entry by at most the other entry. Mostly this decides.
    _, across, _, _ = cv2.minMaxLoc(cv2.absdiff(twice_xy, 0.0))
    if 0.5 * across - min(cv2.minMaxLoc(xx)[0], cv2.minMaxLoc(yy)[0]) <= allowed:
        return 1.0
    fall = 0.5 * cv2.minMaxLoc(cv2.magnitude(cv2.subtract(xx, yy), twice_xy) - cv2.add(xx, yy))[1]
    return min(1.0, allowed / fall) if fall > 0 else 1.0


def seen(head: Affine, box: Box, size: int) -> tuple[slice, slice]:
    """The rows and columns of a frame of `size` pixels where the head's map may lead into a box; not the outermost."""
    left, top, right, bottom = box
    a, b, c, d = inverse(head.matrix)
    x, y, width, height = 0.5 * (left + right), 0.5 * (top + bottom), 0.5 * (right - left), 0.5 * (bottom - top)
    # Where the window fades the head's motion, the place is between the box and the box moved by the whole motion.
    from_x, from_y = x - head.offset[0], y - head.offset[1]
    moved_x, moved_width = a * from_x + b * from_y, abs(a) * width + abs(b) * height
    moved_y, moved_height = c * from_x + d * from_y, abs(c) * width + abs(d) * height
    return (
        _pixels(min(top, moved_y - moved_height), max(bottom, moved_y + moved_height), size),
        _pixels(min(left, moved_x - moved_width), max(right, moved_x + moved_width), size),
    )


def _pixels(low: float, high: float, size: int) -> slice:
    scale, last = 0.5 * (size - 1), size - 1
    return slice(min(max(int((low + 1) * scale) - 2, 1), last), min(max(int((high + 1) * scale) + 4, 1), last))


def product(one: Matrix, other: Matrix) -> Matrix:
    (a, b, c, d), (e, f, g, h) = one, other
    return (a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h)


def inverse(matrix: Matrix) -> Matrix:
    """The inverse of a matrix that is known to have one."""
    a, b, c, d = matrix
    determinant = a * d - b * c
    return (d / determinant, -b / determinant, -c / determinant, a / determinant)


def _times(matrix: Matrix, vector: tuple[float, float]) -> tuple[float, float]:
    (a, b, c, d), (x, y) = matrix, vector
    return (a * x + b * y, c * x + d * y)


def _rotation(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)
