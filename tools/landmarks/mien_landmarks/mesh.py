"""Finds landmarks in pictures with MediaPipe Face Mesh; reads clips with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from mien_landmarks.geometry import NUM_LANDMARKS, Array
from mien_shared.media.pace import Pace, usual_rate
from mien_shared.media.upright import Orientation


class FaceMesh:
    """Finds and tracks one face from frame to frame; a context manager, because it owns native threads."""

    def __init__(self) -> None:
        import mediapipe  # imported here because it takes seconds to load and nothing else needs it

        self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=1, refine_landmarks=True
        )

    def __enter__(self) -> FaceMesh:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._mesh.close()

    def find(self, rgb: NDArray[np.uint8]) -> Array | None:
        """(H, W, 3) RGB to (478, 2) landmarks in pixels, or None if there is no face."""
        found = self._mesh.process(rgb).multi_face_landmarks
        if not found:
            return None
        height, width = rgb.shape[:2]
        landmarks = np.array([(point.x * width, point.y * height) for point in found[0].landmark])
        if landmarks.shape != (NUM_LANDMARKS, 2):
            raise RuntimeError(f"Face Mesh found {len(landmarks)} landmarks, not {NUM_LANDMARKS}")
        return landmarks


@dataclass(frozen=True, slots=True)
class ClipFace:
    """One frame of a clip: its time in seconds, and the face's landmarks (478, 2) in pixels, or None."""

    time_s: float
    landmarks: Array | None


def faces_of(clip: Path) -> Iterator[ClipFace]:
    """Every frame of a video file, with its face. Raises av.FFmpegError if the file is not a video."""
    for rgb, time_s, landmarks in pictures_of(clip):
        del rgb
        yield ClipFace(time_s, landmarks)


def pictures_of(clip: Path) -> Iterator[tuple[NDArray[np.uint8], float, Array | None]]:
    """Every frame of a video file as (H, W, 3) RGB, with its time in seconds and its face, as faces_of."""
    with FaceMesh() as mesh, av.open(str(clip)) as container:
        stream = container.streams.video[0]
        pace = Pace(usual_rate(stream.average_rate, stream.guessed_rate))
        for frame in container.decode(stream):
            rgb = Orientation.of(frame).upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            yield rgb, pace.at_s(frame.time), mesh.find(rgb)
