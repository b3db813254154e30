"""The sender's judgement: decides which frames may be shown and what replaces the others (paper, section 3.3).

**L2, eq. 2 of the paper**, is computed as follows. v_r, J_r are the keypoints and Jacobians of a frame, and v_i, J_i
those of the initial frame:

    L2 = alpha * || v_r - v_i ||  +  beta * || J_r J_i^-1 - 1 ||        alpha = 2, beta = 1

Each norm is the Euclidean norm over all ten keypoints at once (the root of the sum of all 20, or all 40, squared
entries), in crop coordinates. Relative motion is exactly (v_r - v_i, J_r J_i^-1). So L2 measures how far the motion
would deform the avatar's own picture, the source pose: 0 at rest, about 1.3 for a blink. A frame above the threshold
tau is rejected, because a generator smears the face at such large motion. Viewers see the default motion instead.

**The initial frame** is at first the first frame with a face. After that, each frame that is clearly closer to the
source pose replaces it; closer means a smaller L2 against the avatar's keypoints. Two people's proportions differ, so
this distance is never 0, but it is smallest for the same pose. Position and size of the face count in it too, because
crops of clips and avatars are framed alike: with an initial frame whose face is displaced, the avatar would stay
displaced.

Pure: no clock, no picture, no socket. docs/judgement.md explains the choice of tau; tests/shared/wire/vectors holds
test vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mien_shared.default_motion import DefaultMotion, Ease
from mien_shared.keypoints import Keypoints
from mien_shared.mouth import opened
from mien_shared.wire.motion import MAX_COORDINATE, MAX_JACOBIAN, MotionFlags

ALPHA = 2.0
BETA = 1.0
#: No frame of ordinary speech reaches this value; above it pictures are visibly distorted (docs/judgement.md).
TAU = 2.6

#: A Jacobian with a smallest singular value below this counts as singular; that of a closed eye is ten times larger.
_LEAST_STRETCH = 0.01


class TimeRanBackwards(ValueError):
    """A frame was captured before the previous frame."""


class FrameVerdict(Enum):
    """The decision about a frame."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # L2 above tau, or motion that a packet cannot carry, or too soon after such a frame
    LOST = "lost"  # the frame has no face


@dataclass(frozen=True, slots=True)
class JudgementPolicy:
    """The parameters of the judgement. A frame that may be shown is called fit.

    alpha, beta, tau: see eq. 2. An infinite tau rejects only motion that a packet cannot carry.
    release: after a rejection a frame is fit only below this share of tau, so that motion near tau does not flicker.
    bridge_s: unfit frames hold the last motion for this long; then the default motion starts.
    calm_s: frames must be fit for this long before the default motion ends.
    ease_out_s: length of the transition to the default motion.
    ease_in_s: length of the transition back to the speaker's motion, or to a new initial frame.
    closer: a frame becomes the initial frame if its distance to the source pose is below this share of the current one.
    forget_s: after this long without a face, the next face gets a new initial frame.
    """

    alpha: float = ALPHA
    beta: float = BETA
    tau: float = TAU
    release: float = 0.85
    bridge_s: float = 0.1
    calm_s: float = 0.2
    ease_out_s: float = 0.4
    ease_in_s: float = 0.25
    closer: float = 0.9
    forget_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What to send for one frame.

    motion: relative motion that a packet can carry. flags: for the packet. l2: eq. 2, None if it cannot be computed.
    """

    motion: Keypoints
    flags: MotionFlags
    verdict: FrameVerdict
    l2: float | None


class _State(Enum):
    SPEAKING = "the speaker's motion is shown"
    BRIDGING = "the last motion is held"
    RESTING = "the default motion is shown"


def l2(motion: Keypoints, alpha: float = ALPHA, beta: float = BETA) -> float:
    """Eq. 2 for a relative motion; 0 at rest. Not finite if the motion is not finite."""
    displacement = math.sqrt(float(np.square(motion.points, dtype=np.float64).sum()))
    deviation = math.sqrt(float(np.square(motion.jacobians - np.eye(2), dtype=np.float64).sum()))
    return alpha * displacement + beta * deviation


class Judgement:
    """One sender's judgement. For each frame it takes the detected keypoints and returns the motion to send.

    source: the avatar's keypoints; the initial frame is chosen close to their pose. seed: for the default motion.
    Counts the decisions (`accepted`, `rejected`, `lost`) and the new initial frames (`initial_frames`).
    """

    def __init__(self, source: Keypoints, policy: JudgementPolicy | None = None, seed: int = 0) -> None:
        if not _is_invertible(source):
            raise ValueError("the source pose has a singular Jacobian or a value that is not finite")
        self._source = source
        self._policy = policy or JudgementPolicy()
        self._default = DefaultMotion(source, seed)
        self._initial: Keypoints | None = None
        self._initial_distance = math.inf
        self._state = _State.RESTING
        self._now_s: float | None = None
        self._since_s = 0.0  # when the state began
        self._fit_since_s: float | None = None
        self._face_at_s: float | None = None
        self._ease = Ease(0.0)
        self.accepted = self.rejected = self.lost = self.initial_frames = 0

    def judge(self, found: Keypoints | None, time_s: float, mouth: float = 0.0) -> Judged:
        """The motion to send for a frame captured at `time_s`.

        found: the frame's keypoints in the crop, which need not be finite; None if there is no face. mouth: how far the
        voice opens the mouth of the default motion, 0 to 1.
        Raises TimeRanBackwards if the previous frame was captured later than this one; this frame is not counted.
        """
        if self._now_s is None:
            self._since_s = time_s
        elif time_s < self._now_s:
            raise TimeRanBackwards(f"a frame was captured {self._now_s - time_s:.3f} s before the previous frame")
        self._now_s = time_s
        replaced = found is not None and self._consider_initial(found, time_s)
        relative = None if found is None or self._initial is None else _relative(found, self._initial)
        measured = None if relative is None else l2(relative, self._policy.alpha, self._policy.beta)
        self._update_state(measured, time_s)
        if replaced:
            self._ease.begin(time_s, self._policy.ease_in_s)
        motion = self._shown(relative, time_s, mouth)
        flags = MotionFlags.NEW_INITIAL_FRAME if replaced else MotionFlags.NONE
        if self._state is not _State.SPEAKING:
            flags |= MotionFlags.DEFAULT_MOTION
        return Judged(motion, flags, self._count_verdict(found), measured)

    def _consider_initial(self, found: Keypoints, time_s: float) -> bool:
        """Make this frame the initial frame if it is closer to the source pose; returns whether it was."""
        if not _is_invertible(found):
            return False
        if self._face_at_s is not None and time_s - self._face_at_s > self._policy.forget_s:
            self._initial = None
        self._face_at_s = time_s
        distance = l2(found.relative_to(self._source), self._policy.alpha, self._policy.beta)
        if self._initial is not None and distance >= self._policy.closer * self._initial_distance:
            return False
        self._initial, self._initial_distance = found, distance
        self.initial_frames += 1
        return True

    def _update_state(self, measured: float | None, time_s: float) -> None:
        policy = self._policy
        limit = policy.tau if self._state is _State.SPEAKING else policy.release * policy.tau
        fit = measured is not None and measured <= limit
        if not fit:
            self._fit_since_s = None
        elif self._fit_since_s is None:
            self._fit_since_s = time_s
        if self._state is _State.SPEAKING and not fit:
            self._enter(_State.BRIDGING, time_s)
        elif self._state is _State.BRIDGING and fit:
            self._enter(_State.SPEAKING, time_s)
            self._ease.begin(time_s, policy.ease_in_s)
        elif self._state is _State.BRIDGING and time_s - self._since_s >= policy.bridge_s:
            self._enter(_State.RESTING, time_s)
            self._ease.begin(time_s, policy.ease_out_s)
        elif self._state is _State.RESTING and self._has_been_calm(time_s):
            self._enter(_State.SPEAKING, time_s)
            self._ease.begin(time_s, policy.ease_in_s)

    def _has_been_calm(self, time_s: float) -> bool:
        # The first face of a session is shown at once.
        calm_s = 0.0 if self.accepted == 0 else self._policy.calm_s
        return self._fit_since_s is not None and time_s - self._fit_since_s >= calm_s

    def _enter(self, state: _State, time_s: float) -> None:
        self._state, self._since_s = state, time_s

    def _shown(self, relative: Keypoints | None, time_s: float, mouth: float) -> Keypoints:
        if self._state is _State.BRIDGING:
            return self._ease.shown
        if self._state is _State.RESTING:
            return self._ease.show(opened(self._default.at(time_s - self._since_s), mouth), time_s)
        assert relative is not None  # a frame without relative motion is never fit
        return self._ease.show(relative, time_s)

    def _count_verdict(self, found: Keypoints | None) -> FrameVerdict:
        if found is None:
            self.lost += 1
            return FrameVerdict.LOST
        if self._state is _State.SPEAKING:
            self.accepted += 1
            return FrameVerdict.ACCEPTED
        self.rejected += 1
        return FrameVerdict.REJECTED


def _relative(found: Keypoints, initial: Keypoints) -> Keypoints | None:
    """Motion since the initial frame; None if a packet cannot carry it."""
    if not _is_finite(found):
        return None
    relative = found.relative_to(initial)
    fits = np.abs(relative.points).max() <= MAX_COORDINATE and np.abs(relative.jacobians).max() <= MAX_JACOBIAN
    return relative if fits else None


def _is_invertible(keypoints: Keypoints) -> bool:
    """Whether every value is finite and every Jacobian is clearly invertible."""
    return _is_finite(keypoints) and bool(np.linalg.svd(keypoints.jacobians, compute_uv=False).min() >= _LEAST_STRETCH)


def _is_finite(keypoints: Keypoints) -> bool:
    return bool(np.isfinite(keypoints.points).all() and np.isfinite(keypoints.jacobians).all())
