"""A computed avatar and its motion, for measurements and tests that need no photograph."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from mien_generator.face.contract import MAX_FACE_SIZE, AvatarFace, RgbArray
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_generator.h264.encoder import FRAME_RATE
from mien_shared.avatars import FaceBox
from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, Keypoints

CROP = FaceBox(x=(FRAME_WIDTH - MAX_FACE_SIZE) // 2, y=120, size=MAX_FACE_SIZE)

#: Typical positions of a face's keypoints in an avatar's crop. Measurements of time need no exact keypoints.
_TYPICAL_POINTS = np.array(
    [
        (-0.26, -0.36), (0.26, -0.36), (-0.22, -0.24), (0.22, -0.24), (0.0, 0.0),
        (0.0, 0.19), (0.0, 0.25), (0.0, 0.51), (-0.34, 0.05), (0.34, 0.05),
    ],
    np.float32,
)  # fmt: skip


def source_keypoints() -> Keypoints:
    """Typical keypoints of a face in an avatar's crop."""
    return Keypoints(_TYPICAL_POINTS, np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1)))


def face_of(still: RgbArray) -> AvatarFace:
    """The avatar face in a still picture with the framing of `draw_speaker`."""
    crop = still[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size]
    return AvatarFace(np.ascontiguousarray(crop), source_keypoints())


def talking(source: Keypoints) -> Iterator[Keypoints]:
    """Endless motion: the head sways and nods, the lips move, the eyes blink every three seconds."""
    frame = 0
    while True:
        t = frame / FRAME_RATE
        motion = Keypoints.at_rest()
        motion.points[:] = 0.05 * math.sin(1.7 * t), 0.03 * math.sin(2.9 * t)
        motion.points[FaceKeypoint.NOSE, 0] += 0.02 * math.sin(1.7 * t)
        opening = 0.05 * max(0.0, math.sin(11 * t)) * (1 + math.sin(1.3 * t)) / 2
        motion.points[FaceKeypoint.LOWER_LIP, 1] += opening
        motion.points[FaceKeypoint.CHIN, 1] += 0.7 * opening
        if frame % (3 * FRAME_RATE) < 4:
            motion.jacobians[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE], 1, 1] = 0.15
        yield motion.applied_to(source)
        frame += 1


def draw_speaker() -> RgbArray:
    """A simple head and shoulders with the grain of a photograph. The face matches `CROP` and `source_keypoints`."""
    rng = np.random.default_rng(1)
    picture = np.full((FRAME_HEIGHT, FRAME_WIDTH, 3), (118, 128, 140), np.uint8)
    half = CROP.size / 2

    def at(x: float, y: float) -> tuple[int, int]:
        return round(CROP.x + half * (x + 1)), round(CROP.y + half * (y + 1))

    def ellipse(x: float, y: float, width: float, height: float, rgb: tuple[int, int, int]) -> None:
        cv2.ellipse(picture, at(x, y), (round(half * width), round(half * height)), 0, 0, 360, rgb, -1, cv2.LINE_AA)

    ellipse(0, 1.75, 1.5, 1.0, (52, 70, 110))
    ellipse(0, 0.65, 0.22, 0.40, (196, 154, 128))
    ellipse(0, -0.20, 0.56, 0.66, (62, 44, 36))
    ellipse(0, -0.02, 0.46, 0.58, (224, 184, 158))
    for x in (-0.22, 0.22):
        ellipse(x, -0.36, 0.11, 0.018, (70, 50, 40))
        ellipse(x, -0.24, 0.085, 0.045, (245, 245, 245))
        ellipse(x, -0.24, 0.038, 0.042, (70, 90, 70))
    ellipse(0, 0.02, 0.07, 0.05, (208, 160, 136))
    ellipse(0, 0.22, 0.16, 0.05, (186, 96, 96))
    ellipse(0, 0.22, 0.15, 0.008, (110, 48, 52))
    grain = cv2.GaussianBlur(rng.normal(0, 14, picture.shape), (0, 0), 1.2)
    speaker: RgbArray = np.clip(picture + grain, 0, 255).astype(np.uint8)
    return speaker
