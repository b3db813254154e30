"""What webhooks are told of a change in a room. Pure."""

from __future__ import annotations

from typing import Any

from mien_gateway.room_state import Change, Room
from mien_gateway.webhooks import WebhookEvent
from mien_shared.bus.room_messages import EventType, LeaveReason, ParticipantRecord, ParticipantState, RoomRecord


def news_of(room: Room, change: Change) -> list[tuple[WebhookEvent, dict[str, Any]]]:
    """The webhook events of a change, in their order."""
    data, events = room_data(room.record), []
    for event in change.events:
        if event.type is EventType.PARTICIPANT_JOINED and event.participant is not None:
            events.append((WebhookEvent.PARTICIPANT_JOINED, data | _participant_data(event.participant)))
    reason = next((event.reason for event in change.events if event.type is EventType.PARTICIPANT_LEFT), None)
    for one in change.gone:
        if one.state is ParticipantState.ACTIVE:
            left = {"reason": LeaveReason.ROOM_ENDED if change.end else reason}
            events.append((WebhookEvent.PARTICIPANT_LEFT, data | _participant_data(one) | left))
    if change.end is not None:
        events.append((WebhookEvent.ROOM_FINISHED, data | {"reason": change.end}))
    return events


def room_data(record: RoomRecord) -> dict[str, Any]:
    return {"room": {"room_id": record.room_id, "name": record.name, "metadata": record.metadata}}


def _participant_data(one: ParticipantRecord) -> dict[str, Any]:
    return {"participant": {"participant_id": one.participant_id, "identity": one.identity, "name": one.name}}
