"""Draws a clip's keypoints and Jacobians over its frames, for visual inspection."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from mien_landmarks.geometry import CropSquare, crop_box_of, keypoints_of
from mien_landmarks.mesh import FaceMesh
from mien_shared.media.upright import Orientation

_SIZE = 512
_ARM = 0.09  # crop units: length of the drawn arm for a unit column of a Jacobian


def draw_clip(clip: Path, folder: Path, every: int) -> None:
    """Write FOLDER/NNNN.png, the crop of every `every`-th frame. Red arms are J's first column, green its second."""
    folder.mkdir(parents=True, exist_ok=True)
    box: CropSquare | None = None
    with FaceMesh() as mesh, av.open(str(clip)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            rgb = Orientation.of(frame).upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            landmarks = mesh.find(rgb)
            if landmarks is None or number % every:
                continue
            box = box or crop_box_of(landmarks)
            scale = _SIZE / box.size
            place = np.array([[scale, 0, -box.x * scale], [0, scale, -box.y * scale]])
            canvas = cv2.warpAffine(rgb[..., ::-1], place, (_SIZE, _SIZE))
            keypoints = keypoints_of(box.to_crop(landmarks))
            for point, jacobian in zip(keypoints.points, keypoints.jacobians, strict=True):
                for column, colour in ((0, (60, 60, 255)), (1, (60, 255, 60))):
                    arm = jacobian[:, column] * _ARM
                    ends = [tuple(int(v) for v in (point + sign * arm + 1) * _SIZE / 2) for sign in (-1, 1)]
                    cv2.line(canvas, ends[0], ends[1], colour, 2, cv2.LINE_AA)
            cv2.imwrite(str(folder / f"{number:04d}.png"), canvas)
