"""The sessions of connected participants. A connection keeps its session alive: the camera may be off."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from mien_gateway.room_connection import RoomConnection
from mien_gateway.rooms import RoomDesk
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.http.problems import Problem


class AttendedSessions:
    """Remembers the sessions' records, so that a Redis that comes back empty gets them again."""

    def __init__(self, desk: RoomDesk, registry: Registry, speaker_ttl_s: int) -> None:
        """speaker_ttl_s: how long the registry keeps the time at which a session last had a speaker."""
        self._desk = desk
        self._registry = registry
        self._speaker_ttl_s = speaker_ttl_s
        self._known: dict[str, SessionRecord | None] = {}  # None: it was not in the registry

    async def learn(self, connections: Iterable[RoomConnection]) -> None:
        """Read the records of sessions that are new here. Raises the errors of Redis."""
        for session_id in _sessions_of(connections).keys() - self._known.keys():
            self._known[session_id] = await self._registry.session(session_id)

    async def keep(self, connections: Iterable[RoomConnection]) -> None:
        """Keep all sessions alive. A participant whose session has ended becomes a listener.

        Raises the errors of Redis.
        """
        owners = _sessions_of(connections)
        self._known = {name: session for name, session in self._known.items() if session and name in owners}
        await self.learn(connections)
        known = [session for session in self._known.values() if session is not None]
        kept = await self._registry.keep_attended(known, self._speaker_ttl_s)
        self._known |= kept
        for session_id, connection in owners.items():
            if self._known.get(session_id) is None and await self._registry.was_ended(session_id):
                with suppress(Problem):  # the participant has left, or the room has ended
                    await self._desk.lose_session(connection.room_id, connection.participant_id, session_id)


def _sessions_of(connections: Iterable[RoomConnection]) -> dict[str, RoomConnection]:
    return {name: one for one in connections if (name := one.now.participant.session_id) is not None}
