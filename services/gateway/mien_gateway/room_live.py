"""Tells clients the live state of their rooms: who speaks, and who is in which slot of their connection.

Both are states without a sequence number. A client gets the current one after `room` or `resumed`, and each one that
differs from the last that it was told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mien_gateway.room_connection import RoomConnection
from mien_shared.bus.live_rooms import LiveRoom, LiveRooms

_SILENT = LiveRoom()


class LiveStates:
    """The live states of this gateway's rooms."""

    def __init__(self, rooms: LiveRooms) -> None:
        self._rooms = rooms
        self._known: dict[str, tuple[bytes, LiveRoom]] = {}

    async def tell(self, versions: Mapping[str, bytes], connections: Mapping[str, Sequence[RoomConnection]]) -> None:
        """Read the states that have changed, and tell clients. Raises the errors of Redis.

        versions: of the state of each room that has connections here, empty for one that has none.
        """
        moved = [name for name, version in versions.items() if version and version != self._version(name)]
        read = await self._rooms.read(moved)
        self._known = {
            name: (version, read.get(name) or (self._state(name) if version else _SILENT))
            for name, version in versions.items()
        }
        for room_id, of_room in connections.items():
            _tell(self._state(room_id), of_room)

    async def greet(self, connection: RoomConnection) -> None:
        """Tell a client that has just connected. Raises the errors of Redis."""
        _tell((await self._rooms.read([connection.room_id]))[connection.room_id], [connection])

    def _version(self, room_id: str) -> bytes:
        return self._known.get(room_id, (b"", _SILENT))[0]

    def _state(self, room_id: str) -> LiveRoom:
        return self._known.get(room_id, (b"", _SILENT))[1]


def _tell(state: LiveRoom, connections: Sequence[RoomConnection]) -> None:
    speakers = json.dumps({"type": "active_speakers", "speakers": [one.model_dump() for one in state.speakers]})
    for connection in connections:
        if connection.now.participant.is_admitted and not connection.needs_state:
            connection.tell("active_speakers", speakers)
            if slots := state.slots.get(connection.participant_id):
                connection.tell("slots", json.dumps({"type": "slots", **slots.model_dump()}))
