"""Ends rooms that are empty or too old, and participants that are away. Every gateway does so for all rooms.

It also ends the sessions of participants that have left, in case the gateway that should have done so was killed.
"""

from __future__ import annotations

from contextlib import suppress

from mien_gateway import room_state
from mien_gateway.room_state import Change, Room
from mien_gateway.rooms import RoomDesk, room_of
from mien_shared.bus.messages import EndReason
from mien_shared.bus.registry import Registry
from mien_shared.bus.room_messages import LeaveReason, RoomEnd
from mien_shared.bus.rooms import Snapshot
from mien_shared.http.problems import Problem

INTERVAL_S = 2.0


class RoomUpkeep:
    """One step of a loop. Several gateways may run it at once: a change is decided again when it is committed."""

    def __init__(self, desk: RoomDesk, registry: Registry) -> None:
        self._desk = desk
        self._registry = registry

    async def step(self) -> None:
        """Apply the limits to every room; raises the errors of Redis."""
        found = await self._desk.rooms.read_all(await self._desk.rooms.listed())
        live = [room_id for room_id, snapshot in found.items() if snapshot.record is not None]
        ended = [room_id for room_id, snapshot in found.items() if snapshot.record is None]
        if found:
            await self._desk.rooms.list_again(live, ended)
        for room_id in live:
            with suppress(Problem):  # it has ended meanwhile
                await self._apply(room_id, found[room_id])
        await self._end_left_sessions()

    async def _apply(self, room_id: str, snapshot: Snapshot) -> None:
        due = room_state.overdue(room_of(snapshot), self._desk.limits)
        if isinstance(due, RoomEnd):
            await self._desk.end_overdue(room_id, due)
        else:
            for participant_id, reason in due:
                await self._depart(room_id, participant_id, reason)

    async def _depart(self, room_id: str, participant_id: str, reason: LeaveReason) -> None:
        def decide(room: Room) -> Change:
            due = room_state.overdue(room, self._desk.limits)
            still = not isinstance(due, RoomEnd) and (participant_id, reason) in due
            return room_state.leave(room, participant_id, reason) if still else Change()

        await self._desk.change(room_id, decide)

    async def _end_left_sessions(self) -> None:
        """End each session whose participant has left, by its mark or by its room's."""
        owned = [
            (session.session_id, session.room_id, session.participant_id)
            for session in await self._registry.sessions()
            if session.room_id is not None and session.participant_id is not None
        ]
        left = await self._desk.rooms.has_left([(room_id, participant_id) for _, room_id, participant_id in owned])
        for (session_id, _, _), has_left in zip(owned, left, strict=True):
            if has_left:
                await self._desk.sessions.end_for_limit(session_id, EndReason.LEFT)
