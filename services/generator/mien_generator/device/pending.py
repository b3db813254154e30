"""The requests that wait for the device, one a session, and which of them make the next batch. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from mien_generator.device.contract import Ask

K = TypeVar("K", bound=Hashable)


class Pending(Generic[K]):
    """Requests by session: the newest request of a session replaces its older one. K: names a session uniquely."""

    def __init__(self) -> None:
        self._asks: dict[K, Ask] = {}

    def __len__(self) -> int:
        return len(self._asks)

    def put(self, key: K, ask: Ask) -> None:
        self._asks[key] = ask

    def drop(self, key: K) -> None:
        self._asks.pop(key, None)

    def __iter__(self) -> Iterator[K]:
        return iter(self._asks)

    def take(self, most: Mapping[int, int]) -> list[tuple[K, Ask]]:
        """Take the next batch: the request with the earliest deadline, and others of its tier, by deadline.

        most: the largest batch of each tier. Requests that no batch takes keep their deadline, so none starves.
        """
        if not self._asks:
            return []
        tier = min(self._asks.values(), key=lambda ask: ask.deadline_s).tier
        of_the_tier = [(key, ask) for key, ask in self._asks.items() if ask.tier == tier]
        batch = heapq.nsmallest(most[tier], of_the_tier, key=lambda entry: entry[1].deadline_s)
        for key, _ in batch:
            del self._asks[key]
        return batch
