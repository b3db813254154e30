"""The keypoints near the shoulders are held still: the face's edge meets a body at rest (paper, section 3.4)."""

from __future__ import annotations

import numpy as np

from mien_shared.keypoints import Keypoints

#: Crop heights (y down, [-1, 1]) between which a keypoint goes from free to held: below the chin, above the shoulders.
FREE_ABOVE_Y = 0.60
HELD_BELOW_Y = 0.75


def hold_shoulders(source: Keypoints, driving: Keypoints, from_y: float = HELD_BELOW_Y) -> Keypoints:
    """`driving` with every keypoint whose SOURCE lies low in the crop brought back to its source.

    from_y: where a keypoint is held altogether; from FREE_ABOVE_Y down to it the hold grows smoothly. A `from_y`
    at or above FREE_ABOVE_Y makes it a step there.
    """
    low = source.points[:, 1]
    span = max(from_y - FREE_ABOVE_Y, 1e-6)
    t = np.clip((low - (from_y - span)) / span, 0.0, 1.0).astype(np.float32)
    hold = t * t * (3 - 2 * t)
    if not hold.any():
        return driving
    points = source.points + (1 - hold)[:, None] * (driving.points - source.points)
    jacobians = source.jacobians + (1 - hold)[:, None, None] * (driving.jacobians - source.jacobians)
    return Keypoints(points, jacobians)
