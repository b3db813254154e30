"""Holds the keypoints near the shoulders still, because the face is pasted onto a body at rest (paper, section 3.4)."""

from __future__ import annotations

import numpy as np

from mien_shared.keypoints import Keypoints

#: Heights in the crop (y down, [-1, 1]), below the chin and above the shoulders: from the first to the second a
#: keypoint changes from free to held.
FREE_ABOVE_Y = 0.60
HELD_BELOW_Y = 0.75


def hold_shoulders(source: Keypoints, driving: Keypoints, from_y: float = HELD_BELOW_Y) -> Keypoints:
    """`driving`, but every keypoint whose source position is low in the crop is moved back to that position.

    from_y: height at which a keypoint is fully held. The hold grows smoothly from FREE_ABOVE_Y to there. With
    `from_y` <= FREE_ABOVE_Y the hold is a step at `from_y`.
    """
    low = source.points[:, 1]
    span = max(from_y - FREE_ABOVE_Y, 1e-6)
    if low.max() <= from_y - span:  # most faces
        return driving
    t = np.clip((low - (from_y - span)) / span, 0.0, 1.0).astype(np.float32)
    hold = t * t * (3 - 2 * t)
    points = source.points + (1 - hold)[:, None] * (driving.points - source.points)
    jacobians = source.jacobians + (1 - hold)[:, None, None] * (driving.jacobians - source.jacobians)
    return Keypoints(points, jacobians)
