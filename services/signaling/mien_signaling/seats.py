"""How many viewers this process serves, and how many it may serve."""

from __future__ import annotations

from collections.abc import Callable


class Seats:
    """A participant that watches its room counts once for each participant that it is sent, and at least once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loads: list[Callable[[], int]] = []

    def also_count(self, load: Callable[[], int]) -> None:
        """Count these viewers, too."""
        self._loads.append(load)

    @property
    def are_taken(self) -> bool:
        """Whether there is no place for another viewer."""
        return sum(load() for load in self._loads) >= self._most
