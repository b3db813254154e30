"""A clip's keypoints as `mien send` finds them, without smoothing or judgement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mien_encoder.crop import RgbArray
from mien_encoder.finder import PatientFinder
from mien_encoder.keypoints import KeypointEncoder
from mien_encoder.tracker import FaceTracker
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.media.pace import Pace, usual_rate
from mien_shared.media.upright import Orientation

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FoundMotion:
    """The motion found in a clip, frame by frame; NaN where there is no face.

    times_s: (N,). rows: (N, 10, 6), keypoints in each frame's crop. boxes: (N, 3), the crop's left, top and side in
    pixels of the picture.
    """

    times_s: Array
    rows: Array
    boxes: Array

    def __len__(self) -> int:
        return len(self.times_s)

    def at(self, frame: int) -> Keypoints | None:
        return Keypoints.from_rows(self.rows[frame]) if np.isfinite(self.rows[frame]).all() else None

    def held(self) -> FoundMotion:
        """The same keypoints, all in the first face's crop, as if the tracker did not follow the face."""
        first = self.boxes[np.flatnonzero(np.isfinite(self.boxes[:, 0]))[0]]
        scale = self.boxes[:, None, 2:] / first[2]
        offset = (2 * self.boxes[:, None, :2] + self.boxes[:, None, 2:] - 2 * first[:2] - first[2]) / first[2]
        rows = np.concatenate([scale * self.rows[:, :, :2] + offset, scale * self.rows[:, :, 2:]], axis=2)
        return FoundMotion(self.times_s, rows, np.tile(first, (len(self), 1)))

    def longest_with_a_face(self) -> FoundMotion:
        """The longest run of frames that all show a face."""
        missing = np.flatnonzero(~np.isfinite(self.rows).all(axis=(1, 2)))
        edges = np.concatenate([[-1], missing, [len(self)]])
        longest = int(np.diff(edges).argmax())
        run = slice(edges[longest] + 1, edges[longest + 1])
        return FoundMotion(self.times_s[run], self.rows[run], self.boxes[run])


def pictures_of(clip: Path) -> Iterable[tuple[float, RgbArray]]:
    """(time in seconds, picture) of every frame of a clip."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        pace = Pace(usual_rate(stream.average_rate, stream.guessed_rate))
        for frame in container.decode(stream):
            rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            yield pace.at_s(frame.time), Orientation.of(frame).upright(rgb)


def noisy(rgb: RgbArray, frames: int, noise: float) -> Iterable[tuple[float, RgbArray]]:
    """One picture repeated at 30 frames per second, each with new camera noise. noise: standard deviation, of 255."""
    random = np.random.default_rng(1)
    for i in range(frames):
        grain = random.normal(scale=noise, size=rgb.shape)
        yield i / 30, np.clip(rgb + grain, 0, 255).astype(np.uint8)


def found_in(pictures: Iterable[tuple[float, RgbArray]]) -> FoundMotion:
    """The tracker's result for every picture."""
    encoder = KeypointEncoder()
    tracker = FaceTracker(encoder, PatientFinder(encoder))
    times_s: list[float] = []
    rows: list[NDArray[np.float32]] = []
    boxes: list[tuple[float, float, float]] = []
    for time_s, rgb in pictures:
        face = tracker.find(rgb, time_s)
        times_s.append(time_s)
        rows.append(np.full((NUM_KEYPOINTS, 6), np.nan, np.float32) if face is None else face.keypoints.rows())
        boxes.append((np.nan, np.nan, np.nan) if face is None else (face.box.x, face.box.y, face.box.size))
    return FoundMotion(np.array(times_s), np.stack(rows).astype(np.float64), np.array(boxes))
