"""What a client knows of its room, from the events that it gets. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mien_client.api import ActiveSpeaker, Participant, RoomConnection, RoomInfo, SlotList


class RoomClosed(Exception):
    """The service refused or closed the connection to a room for good. The text gives the reason."""


class RoomEvent(StrEnum):
    """What a `Room` tells its callbacks, by LiveKit's names where it has one; and what a callback receives."""

    CONNECTED = "connected"  # the participants, as a list
    WAITING = "waiting"  # None: in the lobby
    PARTICIPANT_CONNECTED = "participant_connected"  # the participant
    PARTICIPANT_UPDATED = "participant_updated"  # the participant: muted, hand, avatar
    PARTICIPANT_DISCONNECTED = "participant_disconnected"  # the participant
    PARTICIPANT_WAITING = "participant_waiting"  # the participant in the lobby; for moderators
    TRACK_SUBSCRIBED = "track_subscribed"  # the participant whose picture and voice are now in a slot
    TRACK_UNSUBSCRIBED = "track_unsubscribed"  # the participant whose slot went to another one
    ACTIVE_SPEAKERS_CHANGED = "active_speakers_changed"  # the participants that are heard, the loudest first
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
    """The room and its participants by id. sequence: the number of the newest event, None before the first state.

    connection: where this participant sends and receives media. slots: of its newest connection for watching.
    """

    info: RoomInfo | None = None
    connection: RoomConnection | None = None
    active_speakers: list[ActiveSpeaker] = field(default_factory=list)
    slots: SlotList | None = None
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
            "active_speakers": self._heard,
            "slots": self._seated,
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

    def _heard(self, event: dict[str, Any]) -> list[Told]:
        self.active_speakers = [ActiveSpeaker.model_validate(one) for one in event["speakers"]]
        known = [self.participants.get(one.participant_id) for one in self.active_speakers]
        return [(RoomEvent.ACTIVE_SPEAKERS_CHANGED, [one for one in known if one is not None])]

    def _seated(self, event: dict[str, Any]) -> list[Told]:
        before, self.slots = _occupants(self.slots), SlotList.model_validate(event)
        after = _occupants(self.slots)
        changes = [(RoomEvent.TRACK_UNSUBSCRIBED, name) for name in before if name not in after]
        changes += [(RoomEvent.TRACK_SUBSCRIBED, name) for name in after if name not in before]
        return [(kind, self.participants[name]) for kind, name in changes if name in self.participants]

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
        self.connection = RoomConnection.model_validate(event.get("connection") or {})
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


def _occupants(slots: SlotList | None) -> list[str]:
    return [] if slots is None else [one.participant_id for one in slots.slots if one.participant_id is not None]
