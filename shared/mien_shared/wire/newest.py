"""The slot between a source of motion and its consumer: the newest packet wins, and no queue builds up. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class NewestWins(Generic[T]):
    """Holds the newest entry and, before it, an entry that may not be dropped and still waits.

    At most two entries wait. A packet with a new initial frame may not be dropped, because the packets after it are
    relative to that frame. Only a newer packet with a new initial frame replaces it.
    """

    __slots__ = ("_held", "_may_be_dropped", "_newest")

    def __init__(self, may_be_dropped: Callable[[T], bool]) -> None:
        self._may_be_dropped = may_be_dropped
        self._held: T | None = None
        self._newest: T | None = None

    def __bool__(self) -> bool:
        return self._newest is not None

    def push(self, entry: T) -> int:
        """Store the newest entry; returns how many waiting entries it replaced."""
        if not self._may_be_dropped(entry):
            replaced = len(self.take())
        elif self._newest is None:
            replaced = 0
        elif self._may_be_dropped(self._newest):
            replaced = 1
        else:
            self._held, replaced = self._newest, 0
        self._newest = entry
        return replaced

    def take(self) -> list[T]:
        """Return the waiting entries, the oldest first, and empty the slot."""
        waiting = [entry for entry in (self._held, self._newest) if entry is not None]
        self._held = self._newest = None
        return waiting
