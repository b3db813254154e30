"""The slot between a source of motion and whoever takes it: the newest packet wins, and nothing queues. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class NewestWins(Generic[T]):
    """Holds the newest entry, and before it the last one that may not be dropped, if that still waits.

    At most two entries wait. A packet that names a new initial frame may not be dropped, because the packets after it
    are relative to that frame; a newer packet of the same kind replaces it all the same.
    """

    __slots__ = ("_held", "_may_be_dropped", "_newest")

    def __init__(self, may_be_dropped: Callable[[T], bool]) -> None:
        self._may_be_dropped = may_be_dropped
        self._held: T | None = None
        self._newest: T | None = None

    def __bool__(self) -> bool:
        return self._newest is not None

    def push(self, entry: T) -> int:
        """Put the newest entry in; returns how many waiting entries it replaced."""
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
        """What waits, the oldest first; the slot is empty afterwards."""
        waiting = [entry for entry in (self._held, self._newest) if entry is not None]
        self._held = self._newest = None
        return waiting
