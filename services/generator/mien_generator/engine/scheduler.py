"""Decides which sessions are drawn next. Pure: it knows the times of sessions, nothing else about them.

A live session is due as soon as new motion has arrived. A session whose uplink has stalled is due at the frame rate.
Frames are never queued: new motion replaces older motion that was not drawn yet.

The scheduler is work-conserving: each thread of the device and the pool asks for work when it is free, and gets the
most urgent work of that moment. The earliest deadline goes first. A session's deadline depends only on its last frame,
so the session that has waited longest always gets its turn, on every tier.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

#: Share of a frame's interval. Packets that arrive closer together are a burst, and only the last of them is drawn.
_BURST = 0.6
#: A frame drawn later than this after it was due has missed its slot: the session's schedule restarts from now.
_LATE_S = 1 / 60
#: A frame this many intervals after the previous one leaves a visible gap.
_DEADLINE_INTERVALS = 2


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """The times of one session that decide when it is drawn.

    fresh_since_s: since when motion waits to be drawn, None if none waits; newer motion keeps this time.
    stalls_at_s: when the uplink counts as stalled unless motion arrives. last_due_s: when the last frame was due.
    frames: number of frames so far; of two sessions with the same deadline, the one with fewer frames goes first.
    """

    fresh_since_s: float | None
    stalls_at_s: float
    last_due_s: float
    frames: int

    def due_at_s(self, fps: int) -> float:
        """When the next frame is due."""
        if self.fresh_since_s is not None:
            return max(self.fresh_since_s, self.last_due_s + _BURST / fps)
        return max(self.stalls_at_s, self.last_due_s + 1 / fps)

    def deadline_s(self, fps: int) -> float:
        """The deadline of the next frame. After it, viewers see a gap."""
        return self.last_due_s + _DEADLINE_INTERVALS / fps


class Timed(Protocol):
    """What the scheduler needs of a session: its timing and its tier."""

    @property
    def timing(self) -> FrameTiming: ...

    @property
    def tier(self) -> int: ...


S = TypeVar("S", bound=Timed)


def schedule_s(due_s: float, now_s: float) -> float:
    """The time from which the next frame's due time is counted: the due time of this one, or now if it is too late."""
    return due_s if now_s - due_s < _LATE_S else now_s


@dataclass(frozen=True, slots=True)
class Batch(Generic[S]):
    """The sessions for one run of the device, or an empty batch.

    tier: the tier of all its faces. due: (session, when its frame was due), the earliest deadline first.
    deadline_s: the deadline of the first session; infinite if no session is due. next_due_s: when the next session
    outside this batch is due.
    """

    tier: int
    due: list[tuple[S, float]]
    deadline_s: float
    next_due_s: float


def gather(sessions: Iterable[S], now_s: float, fps: int, most: Mapping[int, int]) -> Batch[S]:
    """The batch to draw now: the session with the earliest deadline, and other sessions of its tier that are due.

    most: the largest batch of each tier. Under overload the sessions take turns, so that none starves.
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
