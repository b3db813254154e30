"""The sender's judgement: which frames are fit to be shown, and what goes in their place (paper, section 3.3).

**L2, eq. 2 of the paper**, as it is taken here. With v_r, J_r the keypoints and Jacobians of a frame and v_i, J_i those
of the initial frame,

    L2 = alpha * || v_r - v_i ||  +  beta * || J_r J_i^-1 - 1 ||        alpha = 2, beta = 1

where each norm is the Euclidean one over all ten keypoints at once (the root of the sum of all 20, or all 40, squared
entries), in crop coordinates. Relative motion is exactly (v_r - v_i, J_r J_i^-1), so L2 is how far the avatar would be
bent away from its own picture, the source pose: nothing at rest, about 1.3 for a blink. A frame above the threshold
tau is rejected: a generator asked for so much shows smears, and viewers see the default motion instead.

**The initial frame** is the first one found, and from then on is replaced by each frame that is clearly closer to the
source pose: whose L2 against the avatar's own keypoints is smaller. Two people's proportions differ, so this distance
is never 0, but it is least where the pose is the same; a face's place and size count in it too, for crops of clips
and avatars are framed alike, and a face taken off its place would leave the avatar off its own ever after.

Pure: no clock, no picture, no socket. docs/judgement.md says how tau was chosen; tests/shared/wire/vectors holds
vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mien_shared.default_motion import DefaultMotion, Ease
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MAX_COORDINATE, MAX_JACOBIAN, MotionFlags

ALPHA = 2.0
BETA = 1.0
#: No frame of ordinary speech reaches it; above it pictures are visibly squeezed (docs/judgement.md).
TAU = 2.6

#: A Jacobian whose smallest singular value is below this has no inverse worth using: a closed eye is ten times wider.
_LEAST_STRETCH = 0.01


class TimeRanBackwards(ValueError):
    """A frame that is older than the one before it."""


class Verdict(Enum):
    """What became of a frame."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # beyond tau, or nothing that a packet can carry, or too soon after such a frame
    LOST = "lost"  # there was no face


@dataclass(frozen=True, slots=True)
class JudgementPolicy:
    """The judgement's numbers.

    alpha, beta, tau: of eq. 2; an infinite tau rejects only what no packet can carry.
    release: after a rejection frames are fit again below this share of tau, so that motion about tau does not flicker.
    bridge_s: a shorter spell of unfit frames holds the last motion; a longer one goes over to the default motion.
    calm_s: how long frames must have been fit again before the default motion ends.
    ease_out_s, ease_in_s: length of going over to the default motion, and to the speaker or another initial frame.
    closer: another frame becomes the initial one when its distance to the source pose is below this share of the old.
    forget_s: after so long without a face whoever comes next gets an initial frame of their own.
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

    motion: relative motion, always fit for a packet. flags: of the packet. l2: eq. 2, None where nothing was measured.
    """

    motion: Keypoints
    flags: MotionFlags
    verdict: Verdict
    l2: float | None


class _State(Enum):
    SPEAKING = "the speaker's own motion is shown"
    BRIDGING = "the last motion is held"
    RESTING = "the default motion is shown"


def l2(motion: Keypoints, alpha: float = ALPHA, beta: float = BETA) -> float:
    """Eq. 2 of relative motion; 0 at rest. Not finite where the motion is not."""
    displacement = math.sqrt(float(np.square(motion.points, dtype=np.float64).sum()))
    deviation = math.sqrt(float(np.square(motion.jacobians - np.eye(2), dtype=np.float64).sum()))
    return alpha * displacement + beta * deviation


class Judgement:
    """One sender's judgement: keypoints as found in, motion fit to be sent out, frame by frame.

    source: the avatar's own keypoints, whose pose the initial frame comes close to. seed: of the default motion.
    Counts frames by what became of them (`accepted`, `rejected`, `lost`) and `initial_frames`.
    """

    def __init__(self, source: Keypoints, policy: JudgementPolicy | None = None, seed: int = 0) -> None:
        if not _is_invertible(source):
            raise ValueError("the source pose has a Jacobian without an inverse")
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

    def judge(self, found: Keypoints | None, time_s: float) -> Judged:
        """The motion to send for a frame captured at `time_s`.

        found: its keypoints in the crop, finite or not; None where there is no face.
        Raises TimeRanBackwards if an earlier frame was captured later; that frame is not counted.
        """
        if self._now_s is None:
            self._since_s = time_s
        elif time_s < self._now_s:
            raise TimeRanBackwards(f"a frame was captured {self._now_s - time_s:.3f} s before the one ahead of it")
        self._now_s = time_s
        replaced = found is not None and self._consider_initial(found, time_s)
        relative = None if found is None or self._initial is None else _relative(found, self._initial)
        measured = None if relative is None else l2(relative, self._policy.alpha, self._policy.beta)
        self._move_on(measured, time_s)
        if replaced:
            self._ease.begin(time_s, self._policy.ease_in_s)
        motion = self._shown(relative, time_s)
        flags = MotionFlags.NEW_INITIAL_FRAME if replaced else MotionFlags.NONE
        if self._state is not _State.SPEAKING:
            flags |= MotionFlags.DEFAULT_MOTION
        return Judged(motion, flags, self._counted(found), measured)

    def _consider_initial(self, found: Keypoints, time_s: float) -> bool:
        """Whether this frame has become the initial one."""
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

    def _move_on(self, measured: float | None, time_s: float) -> None:
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
        # The very first face is no return from anything.
        calm_s = 0.0 if self.accepted == 0 else self._policy.calm_s
        return self._fit_since_s is not None and time_s - self._fit_since_s >= calm_s

    def _enter(self, state: _State, time_s: float) -> None:
        self._state, self._since_s = state, time_s

    def _shown(self, relative: Keypoints | None, time_s: float) -> Keypoints:
        if self._state is _State.BRIDGING:
            return self._ease.shown
        if self._state is _State.RESTING:
            return self._ease.show(self._default.at(time_s - self._since_s), time_s)
        assert relative is not None  # what cannot be measured is not fit
        return self._ease.show(relative, time_s)

    def _counted(self, found: Keypoints | None) -> Verdict:
        if found is None:
            self.lost += 1
            return Verdict.LOST
        if self._state is _State.SPEAKING:
            self.accepted += 1
            return Verdict.ACCEPTED
        self.rejected += 1
        return Verdict.REJECTED


def _relative(found: Keypoints, initial: Keypoints) -> Keypoints | None:
    """Motion since the initial frame; None where no packet can carry it."""
    if not _is_finite(found):
        return None
    relative = found.relative_to(initial)
    fits = np.abs(relative.points).max() <= MAX_COORDINATE and np.abs(relative.jacobians).max() <= MAX_JACOBIAN
    return relative if fits else None


def _is_invertible(keypoints: Keypoints) -> bool:
    """Whether every value is finite and every Jacobian can be divided by."""
    return _is_finite(keypoints) and bool(np.linalg.svd(keypoints.jacobians, compute_uv=False).min() >= _LEAST_STRETCH)


def _is_finite(keypoints: Keypoints) -> bool:
    return bool(np.isfinite(keypoints.points).all() and np.isfinite(keypoints.jacobians).all())
