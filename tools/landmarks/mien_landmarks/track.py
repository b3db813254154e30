"""Makes a motion track from a clip's keypoints: smooths, resamples to 30 fps, joins and loops. No I/O.

A motion track is a plain concatenation of 128-byte motion packets whose capture times start at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien_encoder.smoothing import OneEuro
from mien_landmarks.geometry import motion_since
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

FRAMES_PER_SECOND = 30

Motion = NDArray[np.float64]  # (frames, 10, 6): x, y, j00, j01, j10, j11


class TrackError(ValueError):
    """The clips cannot be made into a track."""


def motion_of(frames: Sequence[Keypoints]) -> Motion:
    """Keypoints of many frames as one (frames, 10, 6) array."""
    return np.stack(
        [np.concatenate([f.points, f.jacobians.reshape(NUM_KEYPOINTS, 4)], axis=1) for f in frames], dtype=np.float64
    )


def keypoints_at(motion: Motion, frame: int) -> Keypoints:
    """One frame of a motion as Keypoints."""
    values = motion[frame].astype(np.float32)
    return Keypoints(values[:, :2], values[:, 2:].reshape(NUM_KEYPOINTS, 2, 2))


def smoothed(motion: Motion, times_s: Sequence[float]) -> Motion:
    """The motion, smoothed by one One-Euro filter."""
    euro = OneEuro()
    return np.stack([euro.filter(frame, time_s) for frame, time_s in zip(motion, times_s, strict=True)])


def resampled(motion: Motion, times_s: Sequence[float]) -> Motion:
    """Linear interpolation at 30 fps from the first time to the last. times_s must rise."""
    times = np.asarray(times_s, dtype=np.float64)
    if len(times) < 2 or (np.diff(times) <= 0).any():
        raise TrackError("a clip needs at least two frames, with rising times")
    count = int((times[-1] - times[0]) * FRAMES_PER_SECOND + 1e-6) + 1
    wanted = times[0] + np.arange(count) / FRAMES_PER_SECOND
    after = np.clip(np.searchsorted(times, wanted, side="right"), 1, len(times) - 1)
    part = np.clip((wanted - times[after - 1]) / (times[after] - times[after - 1]), 0, 1)[:, None, None]
    return np.asarray((1 - part) * motion[after - 1] + part * motion[after])


def relative(motion: Motion, initial: Keypoints) -> Motion:
    """Each frame as motion relative to `initial`."""
    return motion_of([motion_since(keypoints_at(motion, i), initial) for i in range(len(motion))])


def joined(clips: Sequence[Motion], ease_frames: int, *, loop: bool) -> Motion:
    """Join the clips; each eases into the next over `ease_frames`, and with loop the last also into the first.

    Easing cross-fades the end of one clip with the beginning of the next, so the motion does not stop or jump. Each
    join shortens the track by `ease_frames`. A looped track starts after the first clip's eased beginning, so its last
    frame continues in its first.
    """
    if any(len(clip) <= 2 * ease_frames for clip in clips):
        raise TrackError(f"a clip to join needs more than {2 * ease_frames} frames")
    steps = (np.arange(ease_frames) + 1) / (ease_frames + 1)
    amount = (steps * steps * (3 - 2 * steps))[:, None, None]
    parts: list[Motion] = []
    for i, clip in enumerate(clips):
        eased_start = loop or i > 0
        eased_end = loop or i < len(clips) - 1
        parts.append(clip[ease_frames if eased_start else 0 : -ease_frames if eased_end and ease_frames else None])
        if eased_end and ease_frames:
            following = clips[(i + 1) % len(clips)]
            parts.append((1 - amount) * clip[-ease_frames:] + amount * following[:ease_frames])
    return np.concatenate(parts)


def packed(motion: Motion, flags: MotionFlags = MotionFlags.NONE) -> bytes:
    """The track's bytes: one 128-byte packet per frame, 30 per second, with capture times from 0."""
    return b"".join(
        MotionPacket(i, round(i * 1000 / FRAMES_PER_SECOND), keypoints_at(motion, i), flags).pack()
        for i in range(len(motion))
    )
