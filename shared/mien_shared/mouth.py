"""How a mouth opens: what an opening adds to the motion of the lips, the chin and the cheeks.

Fitted by tools/voice_mouth to clips of eight people, with the head's motion taken out: a straight line through the shut
mouth, the same on both sides of the face. Pure. `clients/js/motion/mouth.js` has the same table.
"""

from __future__ import annotations

import numpy as np

from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, Keypoints

#: What an opening of 1, a mouth as wide open as in loud speech, adds to a keypoint: x, y, j00, j01, j10, j11.
_WIDE_OPEN = {
    FaceKeypoint.UPPER_LIP: (0.0, 0.0029, -0.0258, 0.0, 0.0, 0.0154),
    FaceKeypoint.LOWER_LIP: (0.0, 0.0628, -0.0132, 0.0, 0.0, 0.0413),
    FaceKeypoint.CHIN: (0.0, 0.0455, -0.0298, 0.0, 0.0, -0.0452),
    FaceKeypoint.LEFT_CHEEK: (0.0103, 0.0034, -0.0131, -0.0026, 0.0116, -0.0005),
    FaceKeypoint.RIGHT_CHEEK: (-0.0103, 0.0034, -0.0131, 0.0026, -0.0116, -0.0005),
}
_ROWS = np.array([_WIDE_OPEN.get(keypoint, (0.0,) * 6) for keypoint in FaceKeypoint], np.float32)
_POINTS, _JACOBIANS = _ROWS[:, :2], _ROWS[:, 2:].reshape(NUM_KEYPOINTS, 2, 2)


def opened(motion: Keypoints, opening: float) -> Keypoints:
    """Relative motion with the mouth opened further. opening: 0 adds nothing, 1 is wide open."""
    if opening == 0:
        return motion
    stretch = np.eye(2, dtype=np.float32) + np.float32(opening) * _JACOBIANS
    return Keypoints(motion.points + np.float32(opening) * _POINTS, motion.jacobians @ stretch)
