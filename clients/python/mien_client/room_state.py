"""What a client knows of its room, from the events that it gets. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mien_client.api import Participant, RoomInfo


class RoomEvent(StrEnum):
    """What a `Room` tells its callbacks, by LiveKit's names where it has one; and what a callback receives."""

    CONNECTED = "connected"  # the participants, as a list
    WAITING = "waiting"  # None: in the lobby
    PARTICIPANT_CONNECTED = "participant_connected"  # the participant
    PARTICIPANT_UPDATED = "participant_updated"  # the participant: muted, hand, avatar
    PARTICIPANT_DISCONNECTED = "participant_disconnected"  # the participant
    PARTICIPANT_WAITING = "participant_waiting"  # the participant in the lobby; for moderators
    ROOM_UPDATED = "room_updated"  # the room
    CHAT_MESSAGE = "chat_message"  # a Said
    REACTION = "reaction"  # a Said
    REFUSED = "refused"  # what the service did not accept, and why
    RECONNECTING = "reconnecting"  # why the connection broke
    RECONNECTED = "reconnected"  # True if no event was missed
    DISCONNECTED = "disconnected"  # why, for good


@dataclass(frozen=True, slots=True)
class Said:
    """A chat message or a reaction. participant: None if it has left since."""

    participant_id: str
    participant: Participant | None
    text: str


Told = tuple[RoomEvent, Any]


@dataclass
class RoomState:
    """The room and its participants by id. sequence: the number of the newest event, None before the first state."""

    info: RoomInfo | None = None
    participants: dict[str, Participant] = field(default_factory=dict)
    local_id: str | None = None
    sequence: int | None = None

    def apply(self, event: dict[str, Any]) -> list[Told]:
        """Apply one event of the service; returns what the callbacks are told. Unknown types are ignored."""
        self.sequence = event.get("sequence") or self.sequence
        known: dict[str, Callable[[dict[str, Any]], list[Told]]] = {
            "room": self._whole,
            "waiting": self._waits,
            "participant_joined": self._put,
            "participant_updated": self._put,
            "participant_waiting": self._knocks,
            "participant_left": self._left,
            "room_updated": self._updated,
            "message": lambda event: [(RoomEvent.CHAT_MESSAGE, self._said(event, event["text"]))],
            "reaction": lambda event: [(RoomEvent.REACTION, self._said(event, event["reaction"]))],
            "error": lambda event: [(RoomEvent.REFUSED, event.get("detail", ""))],
        }
        apply = known.get(event.get("type", ""))
        return [] if apply is None else apply(event)

    def _waits(self, event: dict[str, Any]) -> list[Told]:
        self.local_id = event["participant_id"]
        return [(RoomEvent.WAITING, None)]

    def _knocks(self, event: dict[str, Any]) -> list[Told]:
        one = Participant.model_validate(event["participant"])
        self.participants[one.participant_id] = one
        return [(RoomEvent.PARTICIPANT_WAITING, one)]

    def _left(self, event: dict[str, Any]) -> list[Told]:
        left = self.participants.pop(event["participant_id"], None)
        return [] if left is None else [(RoomEvent.PARTICIPANT_DISCONNECTED, left)]

    def _updated(self, event: dict[str, Any]) -> list[Told]:
        self.info = RoomInfo.model_validate(event["room"])
        return [(RoomEvent.ROOM_UPDATED, self.info)]

    def _said(self, event: dict[str, Any], text: str) -> Said:
        return Said(event["participant_id"], self.participants.get(event["participant_id"]), text)

    def _put(self, event: dict[str, Any]) -> list[Told]:
        return self._know(Participant.model_validate(event["participant"]))

    def _know(self, one: Participant) -> list[Told]:
        before = self.participants.get(one.participant_id)
        self.participants[one.participant_id] = one
        if before is None or (before.state == "waiting" and one.state != "waiting"):
            return [(RoomEvent.PARTICIPANT_CONNECTED, one)]
        return [] if before == one else [(RoomEvent.PARTICIPANT_UPDATED, one)]

    def _whole(self, event: dict[str, Any]) -> list[Told]:
        """The whole state replaces what was known; the callbacks are told the difference."""
        is_first, before = self.info is None, self.participants
        self.info = RoomInfo.model_validate(event["room"])
        self.local_id = event["participant_id"]
        now = {one.participant_id: one for one in map(Participant.model_validate, event["participants"])}
        if is_first:
            self.participants = now
            return [(RoomEvent.CONNECTED, list(now.values()))]
        gone = [one for name, one in before.items() if name not in now]
        self.participants = {name: one for name, one in before.items() if name in now}
        told: list[Told] = [(RoomEvent.PARTICIPANT_DISCONNECTED, one) for one in gone]
        for one in now.values():
            told += self._know(one)
        return told
