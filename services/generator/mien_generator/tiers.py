"""Which tier each session is drawn on: under overload a session is stepped down before anyone is refused. Pure.

Tiers are numbered from the best, 0, to the last, which needs nothing of the device. A tier is worth having while it
holds the floor's frame rate. The assignment is max-min fair: nobody is raised a second step while somebody else could
be raised a first one, and the oldest session comes first.

Down at once, up slowly: a session goes down when the device has no time for the floor's frame rate of all, and up when
it would still have time to spare afterwards, has had it for the hold-off, and one at a time. A step up that was soon
followed by a step down was a mistake: it doubles the hold-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Shares of the device's time: above FULL sessions go down; a step up must leave it at or below ROOMY.
FULL = 1.0
ROOMY = 0.8
#: Frame rates this far below the floor, for so long, say that the device is full whatever its measured costs say.
_STARVED = 0.8
_STARVED_AFTER_S = 1.0
#: How long there must have been room before a step up: at first, and at most.
_HOLD_OFF_S = 4.0
_MOST_HOLD_OFF_S = 256.0
#: From one step up to the next: long enough to see what it did to the frame rates.
_BETWEEN_RAISES_S = 1.0
#: A step down within so many hold-offs of a step up undoes a mistake.
_MISTAKE = 2
#: After so long without a step the hold-off is what it was at first.
_FORGIVEN_S = 600.0


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """One session as the policy sees it.

    tier: the one it is on. wanted_fps: the frames a second that its motion asks for. drawn_fps: what it gets.
    """

    session_id: str
    tier: int
    wanted_fps: float
    drawn_fps: float


@dataclass(frozen=True, slots=True)
class Step:
    """A session is to go to this tier."""

    session_id: str
    tier: int


def needed_share(face_s: float, wanted_fps: float, floor_fps: float) -> float:
    """The share of the device's time that a session must have: for the floor's frame rate, or less if it wants less."""
    return face_s * min(wanted_fps, floor_fps)


def plan(wanted_fps: Sequence[float], face_s: Sequence[float], floor_fps: float, budget: float) -> list[int]:
    """The tier of each session, the oldest first, that shares out `budget` of the device's time.

    face_s: what a face of each tier takes of the device, 0 for the last.
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
    """Decides steps; told the time, the sessions' loads (oldest first) and what a face costs on each tier now."""

    def __init__(self, floor_fps: float, shares_cores: bool = False) -> None:
        """shares_cores: the device is the CPU, so that it may be what keeps the last tier's sessions from frames."""
        self._floor_fps = floor_fps
        self._shares_cores = shares_cores
        self._starved_since_s: float | None = None
        self._room_since_s: float | None = None
        self._raised_s = float("-inf")
        self._lowered_s = float("-inf")
        self.hold_off_s = _HOLD_OFF_S

    def first_tier(self, sessions: Sequence[SessionLoad], face_s: Sequence[float], wanted_fps: float) -> int:
        """Where a new session begins; the others make room for it at the next decision."""
        wanted = [*(session.wanted_fps for session in sessions), wanted_fps]
        return plan(wanted, face_s, self._floor_fps, FULL)[-1]

    def decide(self, now_s: float, sessions: Sequence[SessionLoad], face_s: Sequence[float]) -> list[Step]:
        """The steps to take now; the caller's next loads show them taken."""
        wanted = [session.wanted_fps for session in sessions]
        used = sum(needed_share(face_s[one.tier], one.wanted_fps, self._floor_fps) for one in sessions)
        if used > FULL:
            return self._lower(now_s, sessions, plan(wanted, face_s, self._floor_fps, FULL))
        on_device = [one for one in sessions if one.tier < len(face_s) - 1]
        if on_device and self._is_starved(now_s, sessions, on_device):
            # The costs say that there is room and the frames say that there is none: believe the frames, one session.
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
