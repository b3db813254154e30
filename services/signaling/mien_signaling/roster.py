"""Tells the registry who watches here, and ends the viewers that an operator wants to end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping

from redis.asyncio import Redis

from mien_shared.bus.messages import ViewerState
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_shared.bus.viewers import Viewers
from mien_shared.clock import Clock

#: How often changes are written and orders are read: one round trip for all sessions.
INTERVAL_S = 0.5

#: Viewers by session.
Roster = Mapping[str, list[ViewerState]]


def merged(*rosters: Roster) -> dict[str, list[ViewerState]]:
    """All viewers of several rosters."""
    found: dict[str, list[ViewerState]] = {}
    for roster in rosters:
        for session_id, viewers in roster.items():
            found.setdefault(session_id, []).extend(viewers)
    return found


class Schedule:
    """Decides which sessions' lists are written: those to which viewers came or went, and each one again in time."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[frozenset[tuple[str, str]], float]] = {}

    def due(self, roster: Roster, now_s: float) -> dict[str, list[ViewerState]]:
        """The lists to write now. A session that lost its last viewer is due once, with an empty list."""
        return {
            session_id: roster.get(session_id, [])
            for session_id in {*roster, *self._written}
            if self._is_due(session_id, roster.get(session_id, []), now_s)
        }

    def _is_due(self, session_id: str, viewers: list[ViewerState], now_s: float) -> bool:
        written, at_s = self._written.get(session_id, (frozenset(), float("-inf")))
        return _members(viewers) != written or now_s - at_s >= KEEP_ALIVE_INTERVAL_S

    def wrote(self, lists: Roster, now_s: float) -> None:
        for session_id, viewers in lists.items():
            if viewers:
                self._written[session_id] = _members(viewers), now_s
            else:
                self._written.pop(session_id, None)


def _members(viewers: Iterable[ViewerState]) -> frozenset[tuple[str, str]]:
    """What makes a list due at once when it changes; the figures can wait for the next keep-alive."""
    return frozenset((viewer.viewer_id, viewer.state) for viewer in viewers)


class Registrar:
    """One step of a loop. roster: the viewers of this process. end: ends one of them, and never waits."""

    def __init__(
        self, redis: Redis, clock: Clock, roster: Callable[[], Roster], end: Callable[[str, str], None]
    ) -> None:
        self._viewers = Viewers(redis)
        self._clock = clock
        self._roster = roster
        self._end = end
        self._service_id = secrets.token_hex(8)
        self._schedule = Schedule()

    async def step(self) -> None:
        """Write what is due, and end whom an operator wants to end. Raises the errors of Redis."""
        roster, now_s = self._roster(), self._clock.monotonic_s()
        lists = self._schedule.due(roster, now_s)
        ends = await self._viewers.exchange(self._service_id, lists, roster)
        self._schedule.wrote(lists, now_s)
        for session_id, viewer_ids in ends.items():
            for viewer_id in viewer_ids:
                self._end(session_id, viewer_id)
