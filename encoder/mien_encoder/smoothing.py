"""Smoothing of keypoints before they are sent: One-Euro, centred Savitzky-Golay, dead zones. Pure; time is passed in.

A smoother takes one (10, 6) array for each frame, with rows of x, y, j00, j01, j10, j11, and returns a smoothed array.
It declares its delay: the returned array belongs to the frame that came `delay_frames` earlier. docs/judgement.md
lists the measured jitter and lag of each smoother.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien_shared.keypoints import NUM_KEYPOINTS

Values = NDArray[np.float64]

#: Five points, cubic, centred (Savitzky and Golay 1964, table I): least squares in the middle of the window.
_SAVITZKY_GOLAY = np.array([-3, 12, 17, 12, -3], np.float64) / 35


class UnsmoothableValue(ValueError):
    """A value that a smoother rejects because it would corrupt its state: not finite, or its shape has changed."""


class Smoother(Protocol):
    """Smooths one stream of values of one shape.

    delay_frames: the returned value belongs to the frame this many frames before the one passed in.
    """

    @property
    def delay_frames(self) -> int: ...

    def filter(self, value: Values, time_s: float) -> Values:
        """The smoothed value. A time that does not advance restarts the stream.

        Raises UnsmoothableValue; the state is then unchanged.
        """

    def reset(self) -> None:
        """Forget the stream; the next value starts a new one."""


class Unsmoothed:
    """Returns every value unchanged."""

    delay_frames = 0

    def filter(self, value: Values, time_s: float) -> Values:
        return _checked(value, None)

    def reset(self) -> None:
        """Does nothing: there is no state."""


class OneEuro:
    """One-Euro filter (Casiez, Roussel and Vogel 2012): steady at rest, fast during motion.

    min_cutoff_hz: the cutoff at rest. beta: how much the cutoff rises, in Hz, for a speed of one unit a second.
    speed_cutoff_hz: the cutoff of the speed estimate. The lag is not a whole number of frames: about one frame at rest,
    less during fast motion.
    """

    delay_frames = 0

    def __init__(self, min_cutoff_hz: float = 3.0, beta: float = 6.0, speed_cutoff_hz: float = 3.0) -> None:
        self._min_cutoff_hz, self._beta, self._speed_cutoff_hz = min_cutoff_hz, beta, speed_cutoff_hz
        self._value: Values | None = None
        self._speed: Values | None = None
        self._time_s = 0.0

    def filter(self, value: Values, time_s: float) -> Values:
        value = _checked(value, self._value)
        elapsed_s = time_s - self._time_s
        self._time_s = time_s
        if self._value is None or self._speed is None or elapsed_s <= 0:
            self._value, self._speed = value, np.zeros_like(value)
            return value.copy()
        speed = (value - self._value) / elapsed_s
        self._speed = self._speed + _share(self._speed_cutoff_hz, elapsed_s) * (speed - self._speed)
        cutoff_hz = self._min_cutoff_hz + self._beta * np.abs(self._speed)
        self._value = self._value + _share(cutoff_hz, elapsed_s) * (value - self._value)
        return self._value.copy()

    def reset(self) -> None:
        self._value = self._speed = None


class SavitzkyGolay:
    """Five-point cubic Savitzky-Golay, centred: the smoothing of the 3D-avatar paper (Liu, Chen and Tian 2021).

    It keeps peaks that a low pass flattens, and delays by two frames. Evaluated at the end of the window instead, it
    would have no delay, but would hardly smooth (the newest sample would have the weight 0.986). Frames are assumed to
    be evenly spaced. A new stream starts as if its first value had been constant before.
    """

    delay_frames = 2

    def __init__(self) -> None:
        self._window: deque[Values] = deque(maxlen=len(_SAVITZKY_GOLAY))
        self._time_s = 0.0

    def filter(self, value: Values, time_s: float) -> Values:
        value = _checked(value, self._window[-1] if self._window else None)
        if not self._window or time_s <= self._time_s:
            self._window.extend([value] * len(_SAVITZKY_GOLAY))
        self._window.append(value)
        self._time_s = time_s
        return np.asarray(np.tensordot(_SAVITZKY_GOLAY, np.stack(self._window), axes=1))

    def reset(self) -> None:
        self._window.clear()


class DeadZones:
    """Holds each keypoint exactly still while it hardly moves. Runs after the `inner` smoother.

    A keypoint is a row of the value. Its motion is the larger of two distances: of its point, in units of
    `point_radius`, and of its Jacobian, in units of `jacobian_radius`. A held keypoint is released when it has moved by
    more than 1 (the zone). A released keypoint is held again when it has stayed within `still` for `still_s` (the
    hysteresis). At release, the shown value is up to one radius behind; this offset decays with the time constant
    `catch_up_s`, so that nothing jumps.
    """

    def __init__(
        self,
        inner: Smoother,
        *,
        point_radius: float = 0.006,
        jacobian_radius: float = 0.03,
        still: float = 0.5,
        still_s: float = 0.3,
        catch_up_s: float = 0.1,
    ) -> None:
        self._inner = inner
        self._radii = np.array([point_radius] * 2 + [jacobian_radius] * 4)
        self._still, self._still_s, self._catch_up_s = still, still_s, catch_up_s
        self._shown: Values | None = None
        self._time_s = 0.0
        self._offset = np.zeros((NUM_KEYPOINTS, 6))
        self._held = np.zeros(NUM_KEYPOINTS, bool)
        self._anchor = np.zeros((NUM_KEYPOINTS, 6))
        self._still_since_s = np.zeros(NUM_KEYPOINTS)

    @property
    def delay_frames(self) -> int:
        return self._inner.delay_frames

    def filter(self, value: Values, time_s: float) -> Values:
        if np.shape(value) != (NUM_KEYPOINTS, 6):
            raise UnsmoothableValue(f"dead zones need ten rows of six values, not an array of shape {np.shape(value)}")
        value = self._inner.filter(value, time_s)
        elapsed_s = time_s - self._time_s
        self._time_s = time_s
        if self._shown is None or elapsed_s <= 0:
            self._shown, self._anchor = value.copy(), value.copy()
            self._offset[:], self._held[:], self._still_since_s[:] = 0, False, time_s
            return value
        self._release(value)
        self._offset *= np.where(self._held, 1.0, np.exp(-elapsed_s / self._catch_up_s))[:, None]
        self._shown = np.where(self._held[:, None], self._shown, value + self._offset)
        self._hold_still_keypoints(value, time_s)
        return self._shown.copy()

    def reset(self) -> None:
        self._inner.reset()
        self._shown = None

    def _release(self, value: Values) -> None:
        assert self._shown is not None
        distance = self._distance(value, self._shown)
        released = self._held & (distance > 1)
        # Only one zone radius of the difference stays as offset, so the first frame of a blink shows at once.
        self._offset[released] = ((self._shown - value) / np.maximum(distance, 1)[:, None])[released]
        self._held &= ~released

    def _hold_still_keypoints(self, value: Values, time_s: float) -> None:
        moved = self._held | (self._distance(value, self._anchor) > self._still)
        self._anchor[moved] = value[moved]
        self._still_since_s[moved] = time_s
        self._held |= time_s - self._still_since_s >= self._still_s

    def _distance(self, value: Values, other: Values) -> Values:
        """(10,) distance of each keypoint between two values; 1 is the radius of the zone."""
        scaled = (value - other) / self._radii
        points, jacobians = np.linalg.norm(scaled[:, :2], axis=1), np.linalg.norm(scaled[:, 2:], axis=1)
        return np.asarray(np.maximum(points, jacobians))


def _checked(value: Values, before: Values | None) -> Values:
    value = np.array(value, np.float64)
    if not np.isfinite(value).all():
        raise UnsmoothableValue("the value to smooth is not finite")
    if before is not None and value.shape != before.shape:
        raise UnsmoothableValue(f"the value to smooth has shape {value.shape}, the previous one {before.shape}")
    return value


def _share(cutoff_hz: Values | float, elapsed_s: float) -> Values:
    """The weight of the newest sample in a first-order low pass."""
    turns = 2 * np.pi * np.asarray(cutoff_hz) * elapsed_s
    return np.asarray(turns / (turns + 1))
