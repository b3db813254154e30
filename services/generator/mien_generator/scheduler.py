"""Who is drawn next. Pure: it knows times, not sessions' insides.

A live session is due the moment a new motion has arrived; a session whose uplink has stalled is due at the frame rate.
Frames are never queued: a motion that arrives before the one before it was drawn replaces it.

Work-conserving: whoever is free, the device or a thread of the pool, asks here and gets what is most urgent now. The
earliest deadline goes first, and a session's deadline depends on its last frame alone: who has waited longest cannot be
overtaken for ever, whatever tier it is on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

#: Of a frame's interval: packets that come closer together than this are a burst, and only its last is drawn.
_BURST = 0.6
#: A tick later than this has lost its beat and starts a new one.
_LATE_S = 1 / 60
#: A frame this many intervals after the one before it leaves a gap that is seen.
_DEADLINE_INTERVALS = 2


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """When a session last got a frame and what has happened to it since.

    fresh_since_s: since when motion waits to be drawn, None where none waits; newer motion does not lose the place.
    stalls_at_s: when the uplink counts as stalled unless motion comes. last_due_s: when the last frame was due.
    frames: how many it has got; of two that waited equally long, who got fewer goes first.
    """

    fresh_since_s: float | None
    stalls_at_s: float
    last_due_s: float
    frames: int

    def due_at_s(self, fps: int) -> float:
        """When the next frame is to be drawn."""
        if self.fresh_since_s is not None:
            return max(self.fresh_since_s, self.last_due_s + _BURST / fps)
        return max(self.stalls_at_s, self.last_due_s + 1 / fps)

    def deadline_s(self, fps: int) -> float:
        """By when it ought to be there, lest its viewers see a gap."""
        return self.last_due_s + _DEADLINE_INTERVALS / fps


class Timed(Protocol):
    """Whatever has a timing and a tier: a session, or a test's stand-in for one."""

    @property
    def timing(self) -> FrameTiming: ...

    @property
    def tier(self) -> int: ...


S = TypeVar("S", bound=Timed)


def beat_s(due_s: float, now_s: float) -> float:
    """The time from which a session drawn now counts on: its beat, or now where it came too late to keep it."""
    return due_s if now_s - due_s < _LATE_S else now_s


@dataclass(frozen=True, slots=True)
class Batch(Generic[S]):
    """One run of the device, or nothing to do.

    tier: all faces of a batch are of one. due: (session, when its frame was due), the earliest deadline first.
    deadline_s: that of the first; infinite where nobody is due. next_due_s: when somebody who is not in it is due.
    """

    tier: int
    due: list[tuple[S, float]]
    deadline_s: float
    next_due_s: float


def gather(sessions: Iterable[S], now_s: float, fps: int, most: Mapping[int, int]) -> Batch[S]:
    """What to draw now: the session with the earliest deadline, and with it those of its tier that are due, too.

    most: the faces that a batch of a tier may hold. So under overload the sessions take turns, and none starves.
    """
    due: list[tuple[float, int, int, S, float]] = []
    next_due_s = float("inf")
    for index, session in enumerate(sessions):
        timing = session.timing
        due_s = timing.due_at_s(fps)
        if due_s <= now_s:
            due.append((timing.deadline_s(fps), timing.frames, index, session, due_s))
        else:
            next_due_s = min(next_due_s, due_s)
    if not due:
        return Batch(0, [], float("inf"), next_due_s)
    by_urgency = itemgetter(0, 1, 2)
    deadline_s, *_, first, _ = min(due, key=by_urgency)
    of_the_tier = [entry for entry in due if entry[3].tier == first.tier]
    taken = heapq.nsmallest(most[first.tier], of_the_tier, key=by_urgency)
    if len(taken) < len(due):
        next_due_s = now_s
    return Batch(first.tier, [(session, due_s) for *_, session, due_s in taken], deadline_s, next_due_s)
