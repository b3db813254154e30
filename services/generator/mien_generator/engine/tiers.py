"""Decides the tier of each session. Under overload sessions step down before a new session is refused. Pure.

Tiers are numbered from 0, the best, to the last, which needs no device time. A tier of the device is useful only while
it gives its sessions the floor's frame rate. The assignment is max-min fair: no session gets a second step up while
another could get its first, and older sessions come first.

Steps down are immediate: sessions step down when the device has no time for the floor's frame rate of all of them.
Steps up are slow: one session at a time steps up, after the device has had spare time for the hold-off, and only if
spare time remains afterwards. A step down soon after a step up shows that the step up was a mistake: it doubles the
hold-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Shares of the device's time. Above FULL sessions step down. A step up must leave the share at or below ROOMY.
FULL = 1.0
ROOMY = 0.8
#: A frame rate below this share of the floor, for this long, shows that the device is full in spite of measured costs.
_STARVED = 0.8
_STARVED_AFTER_S = 1.0
#: How long there must have been room before a step up: first value and upper limit.
_HOLD_OFF_S = 4.0
_MOST_HOLD_OFF_S = 256.0
#: Time between two steps up: long enough to see the effect on the frame rates.
_BETWEEN_RAISES_S = 1.0
#: If a step down follows a step up within this many hold-offs, the step up was a mistake.
_MISTAKE = 2
#: After this long without a step the hold-off returns to its first value.
_FORGIVEN_S = 600.0


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """What the policy knows about one session.

    tier: its present tier. wanted_fps: the frame rate that its motion needs. drawn_fps: the frame rate that it gets.
    since_s: when it began, monotonic.
    """

    session_id: str
    tier: int
    wanted_fps: float
    drawn_fps: float
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """A decision: the session changes to this tier."""

    session_id: str
    tier: int


def needed_share(face_s: float, wanted_fps: float, floor_fps: float) -> float:
    """The share of the device's time that a session needs for the floor's frame rate, or for less if it wants less.

    face_s: seconds of device time per face.
    """
    return face_s * min(wanted_fps, floor_fps)


def plan(wanted_fps: Sequence[float], face_s: Sequence[float], floor_fps: float, budget: float) -> list[int]:
    """The tier of each session, such that all sessions together need at most `budget` of the device's time.

    wanted_fps: one entry per session, the oldest first. face_s: seconds of device time per face of each tier, 0 for the
    last.
    """
    last = len(face_s) - 1
    tiers, used = [last] * len(wanted_fps), 0.0
    for tier in reversed(range(last)):
        for index, fps in enumerate(wanted_fps):
            more = needed_share(face_s[tier], fps, floor_fps) - needed_share(face_s[tiers[index]], fps, floor_fps)
            if used + more <= budget:
                tiers[index], used = tier, used + more
    return tiers


class TierPolicy:
    """Decides the steps between tiers.

    Its inputs are the time, the sessions' loads (oldest first), and the present cost of a face on each tier.
    """

    def __init__(self, floor_fps: float, shares_cores: bool = False) -> None:
        """shares_cores: the device is the CPU, so its faces can take time from the sessions of the last tier."""
        self._floor_fps = floor_fps
        self._shares_cores = shares_cores
        self._starved_since_s: float | None = None
        self._room_since_s: float | None = None
        self._raised_s = float("-inf")
        self._lowered_s = float("-inf")
        self.hold_off_s = _HOLD_OFF_S

    def first_tier(self, sessions: Sequence[SessionLoad], face_s: Sequence[float], wanted_fps: float) -> int:
        """The tier on which a new session begins: one that will hold, so that its first second looks like the rest.

        The other sessions make room for it at the next decision.
        """
        wanted = [*(session.wanted_fps for session in sessions), wanted_fps]
        return plan(wanted, face_s, self._floor_fps, ROOMY)[-1]

    def decide(self, now_s: float, sessions: Sequence[SessionLoad], face_s: Sequence[float]) -> list[Step]:
        """The steps to take now. The loads of the next call must show the new tiers."""
        wanted = [session.wanted_fps for session in sessions]
        used = sum(needed_share(face_s[one.tier], one.wanted_fps, self._floor_fps) for one in sessions)
        if used > FULL:
            return self._lower(now_s, sessions, plan(wanted, face_s, self._floor_fps, FULL))
        on_device = [one for one in sessions if one.tier < len(face_s) - 1]
        if on_device and self._is_starved(now_s, sessions, on_device):
            # The costs say that there is room, but the frame rates say that there is none. Trust the frame rates, and
            # step one session down.
            newest_of_the_best = min(reversed(on_device), key=lambda one: one.tier)
            self._starved_since_s = None
            return self._lower(now_s, [newest_of_the_best], [newest_of_the_best.tier + 1])
        return self._raise(now_s, sessions, plan(wanted, face_s, self._floor_fps, ROOMY))

    def _is_starved(self, now_s: float, sessions: Sequence[SessionLoad], on_device: Sequence[SessionLoad]) -> bool:
        starved = any(one.drawn_fps < _STARVED * min(one.wanted_fps, self._floor_fps) for one in on_device)
        if self._shares_cores and self._floor_fps > 0:
            starved |= any(one.drawn_fps < _STARVED * one.wanted_fps for one in sessions if one not in on_device)
        if not starved:
            self._starved_since_s = None
            return False
        if self._starved_since_s is None:
            self._starved_since_s = now_s
        return now_s - self._starved_since_s >= _STARVED_AFTER_S

    def _lower(self, now_s: float, sessions: Sequence[SessionLoad], tiers: Sequence[int]) -> list[Step]:
        steps = [Step(one.session_id, tier) for one, tier in zip(sessions, tiers, strict=True) if tier > one.tier]
        self._room_since_s = None
        if steps:
            if now_s - self._raised_s < _MISTAKE * self.hold_off_s:
                self.hold_off_s = min(2 * self.hold_off_s, _MOST_HOLD_OFF_S)
                self._raised_s = float("-inf")  # one mistake counts once
            self._lowered_s = now_s
        return steps

    def _raise(self, now_s: float, sessions: Sequence[SessionLoad], tiers: Sequence[int]) -> list[Step]:
        if now_s - max(self._lowered_s, self._raised_s) > _FORGIVEN_S:
            self.hold_off_s = _HOLD_OFF_S
        could = [(one.tier, index) for index, one in enumerate(sessions) if tiers[index] < one.tier]
        if not could:
            self._room_since_s = None
            return []
        if self._room_since_s is None:
            self._room_since_s = now_s
        if now_s - self._room_since_s < self.hold_off_s or now_s - self._raised_s < _BETWEEN_RAISES_S:
            return []
        tier, index = max(could, key=lambda entry: (entry[0], -entry[1]))
        self._raised_s = now_s
        return [Step(sessions[index].session_id, tier - 1)]
