"""How many workers run, and which one gives a session away. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: An idle worker ends after this time, unless its places are needed.
IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the plan knows of a worker.

    sessions: how many it has. idle_since_s: since when it has none, monotonic; None while it has some.
    is_overloaded: its sessions miss frames.
    """

    sessions: int
    idle_since_s: float | None = None
    is_overloaded: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules. comfort: sessions that one worker holds at the full frame rate. most: workers that may run."""

    comfort: int
    most: int

    @property
    def spare(self) -> int:
        """Free places that are kept ready, so that a new session never waits for a worker to start."""
        return (self.comfort + 1) // 2

    def _free(self, workers: Sequence[WorkerView]) -> int:
        return sum(max(0, self.comfort - worker.sessions) for worker in workers)

    def starts_worker(self, workers: Sequence[WorkerView]) -> bool:
        """Whether another worker is needed beside those that run."""
        return not workers or (len(workers) < self.most and self._free(workers) < self.spare)

    def ending(self, workers: Sequence[WorkerView], now_s: float) -> int | None:
        """The index of an idle worker that is not needed any more."""
        if len(workers) < 2 or self._free(workers) - self.comfort < self.spare:
            return None
        since = ((index, one.idle_since_s) for index, one in enumerate(workers) if one.idle_since_s is not None)
        return next((index for index, since_s in since if now_s - since_s >= IDLE_S), None)

    def giving(self, workers: Sequence[WorkerView]) -> int | None:
        """The index of a worker that should give a session away, because another one has clearly more room."""
        if len(workers) < 2:
            return None
        busiest = max(range(len(workers)), key=lambda index: workers[index].sessions)
        least = min(one.sessions for one in workers)
        is_busy = workers[busiest].sessions > self.comfort or workers[busiest].is_overloaded
        return busiest if is_busy and workers[busiest].sessions - least >= 2 else None


def shares(places: int, workers: int) -> list[int]:
    """The places of each worker: together all of them, so that none is missing while few workers run.

    A session that comes before the next worker runs takes a place of a busy worker, and moves later (`Plan.giving`).
    """
    each, rest = divmod(places, workers)
    return [max(1, each + (index < rest)) for index in range(workers)]
