"""Motion of a face: ten keypoints, each with the 2x2 Jacobian of its neighbourhood.

FOMM defines both (Siarohin et al. 2019, section 3.1). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_KEYPOINTS = 10

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:  # noqa: PLW1641 - holds arrays, which are not hashable
    """Ten keypoints with their Jacobians.

    points: (10, 2) float32, x right, y down; the face crop spans [-1, 1].
    jacobians: (10, 2, 2) float32, rows (j00 j01), (j10 j11).
    Relative motion (paper, section 3.3) has points v_r - v_i and jacobians J_r J_i^-1; at rest these are zeros and unit
    matrices.
    """

    points: FloatArray
    jacobians: FloatArray

    @classmethod
    def at_rest(cls) -> Keypoints:
        """The relative motion of a face at rest: zeros and unit matrices."""
        return cls(
            np.zeros((NUM_KEYPOINTS, 2), np.float32),
            np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1)),
        )

    def __eq__(self, other: object) -> bool:  # arrays compare by element, which a dataclass's own __eq__ cannot use
        if not isinstance(other, Keypoints):
            return NotImplemented
        return np.array_equal(self.points, other.points) and np.array_equal(self.jacobians, other.jacobians)

    @classmethod
    def from_rows(cls, rows: ArrayLike) -> Keypoints:
        """Keypoints from ten rows of x, y, j00, j01, j10, j11, the order of the motion packet."""
        values = np.asarray(rows, np.float32).reshape(NUM_KEYPOINTS, 6)
        return cls(values[:, :2].copy(), values[:, 2:].reshape(NUM_KEYPOINTS, 2, 2).copy())

    def rows(self) -> FloatArray:
        """(10, 6) float32: x, y, j00, j01, j10, j11, the order of the motion packet."""
        return np.concatenate([self.points, self.jacobians.reshape(NUM_KEYPOINTS, 4)], axis=1)

    def relative_to(self, initial: Keypoints) -> Keypoints:
        """This frame's motion since `initial`: (v - v_i, J J_i^-1).

        Raises np.linalg.LinAlgError if an initial Jacobian has no inverse.
        """
        return Keypoints(self.points - initial.points, self.jacobians @ np.linalg.inv(initial.jacobians))

    def applied_to(self, source: Keypoints) -> Keypoints:
        """The keypoints of an avatar that this relative motion moves: (v_s + dv, dJ J_s)."""
        return Keypoints(source.points + self.points, self.jacobians @ source.jacobians)

    def blended(self, other: Keypoints, amount: float) -> Keypoints:
        """Linear blend: 0 is self, 1 is `other`."""
        return Keypoints(
            (1 - amount) * self.points + np.float32(amount) * other.points,
            (1 - amount) * self.jacobians + np.float32(amount) * other.jacobians,
        )


class FaceKeypoint(IntEnum):
    """The part of the face that each keypoint of the landmark-based teacher follows. Left and right are in the picture.

    A learned encoder finds other keypoints, in another order.
    """

    LEFT_BROW = 0
    RIGHT_BROW = 1
    LEFT_EYE = 2
    RIGHT_EYE = 3
    NOSE = 4
    UPPER_LIP = 5
    LOWER_LIP = 6
    CHIN = 7
    LEFT_CHEEK = 8
    RIGHT_CHEEK = 9


EYES = (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE)
