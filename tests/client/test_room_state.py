"""What a client knows of its room, event by event."""

from __future__ import annotations

from typing import Any

from mien_client.room_state import RoomEvent, RoomState

ROOM = {"room_id": "r", "max_participants": 9}


def person(name: str, **fields: Any) -> dict[str, Any]:
    return {"participant_id": name, "identity": name, "name": name, "state": "active", **fields}


def state(sequence: int, *people: dict[str, Any]) -> dict[str, Any]:
    return {"type": "room", "sequence": sequence, "room": ROOM, "participants": list(people), "participant_id": "me"}


def told(room: RoomState, event: dict[str, Any]) -> list[tuple[RoomEvent, Any]]:
    return [(kind, getattr(value, "participant_id", value)) for kind, value in room.apply(event)]


def test_the_first_state_and_what_follows() -> None:
    room = RoomState()
    assert [kind for kind, _ in told(room, state(5, person("me"), person("ada")))] == [RoomEvent.CONNECTED]
    assert set(room.participants) == {"me", "ada"} and room.sequence == 5 and room.local_id == "me"
    joined = {"type": "participant_joined", "sequence": 6, "participant": person("bob")}
    assert told(room, joined) == [(RoomEvent.PARTICIPANT_CONNECTED, "bob")]
    assert told(room, joined | {"sequence": 7}) == [], "one that is known and the same is no news"
    muted = {"type": "participant_updated", "sequence": 8, "participant": person("bob", muted=True)}
    assert told(room, muted) == [(RoomEvent.PARTICIPANT_UPDATED, "bob")]
    said = room.apply({"type": "message", "sequence": 9, "participant_id": "bob", "text": "hi"})[0][1]
    assert (said.text, said.participant.muted) == ("hi", True)
    left = {"type": "participant_left", "sequence": 10, "participant_id": "bob"}
    assert told(room, left) == [(RoomEvent.PARTICIPANT_DISCONNECTED, "bob")]
    assert told(room, left) == []
    assert told(room, {"type": "of another version", "sequence": 11}) == [] and room.sequence == 11


def test_a_later_state_tells_the_difference() -> None:
    room = RoomState()
    room.apply(state(5, person("me"), person("ada"), person("bob")))
    again = told(room, state(9, person("me"), person("bob", hand=True), person("eve")))
    assert again == [
        (RoomEvent.PARTICIPANT_DISCONNECTED, "ada"),
        (RoomEvent.PARTICIPANT_UPDATED, "bob"),
        (RoomEvent.PARTICIPANT_CONNECTED, "eve"),
    ]
    assert set(room.participants) == {"me", "bob", "eve"}


def test_the_lobby_from_both_sides() -> None:
    room = RoomState()
    assert told(room, {"type": "waiting", "participant_id": "me"}) == [(RoomEvent.WAITING, None)]
    assert room.sequence is None
    room.apply(state(5, person("me")))
    knock = {"type": "participant_waiting", "sequence": 6, "participant": person("ada", state="waiting")}
    assert told(room, knock) == [(RoomEvent.PARTICIPANT_WAITING, "ada")]
    admitted = {"type": "participant_joined", "sequence": 7, "participant": person("ada")}
    assert told(room, admitted) == [(RoomEvent.PARTICIPANT_CONNECTED, "ada")]
    assert told(room, {"type": "error", "detail": "too many"}) == [(RoomEvent.REFUSED, "too many")]


def slots(*people: str | None) -> dict[str, Any]:
    return {
        "type": "slots",
        "viewer_id": "v",
        "slots": [
            {"slot": at, "video_mid": str(2 * at), "audio_mid": str(2 * at + 1), "participant_id": name}
            for at, name in enumerate(people)
        ],
    }


def test_who_has_a_slot_is_told_as_it_changes() -> None:
    room = RoomState()
    told(room, state(1, person("me"), person("ada"), person("bob")))
    assert told(room, slots("ada", None)) == [(RoomEvent.TRACK_SUBSCRIBED, "ada")]
    assert told(room, slots("ada", None)) == []
    assert told(room, slots("bob", "gone")) == [
        (RoomEvent.TRACK_UNSUBSCRIBED, "ada"),
        (RoomEvent.TRACK_SUBSCRIBED, "bob"),
    ]
    assert room.slots is not None and room.slots.viewer_id == "v" and room.sequence == 1


def test_who_is_heard_and_where_to_connect() -> None:
    room = RoomState()
    connection: dict[str, Any] = {
        "whip_url": "http://a/1",
        "whep_url": "http://a/2",
        "uplink_url": None,
        "ice_servers": [],
    }
    told(room, state(1, person("me"), person("ada")) | {"connection": connection})
    assert room.connection is not None and room.connection.whip_url == "http://a/1"
    heard = {"type": "active_speakers", "speakers": [{"participant_id": "ada", "level": 0.4}]}
    (kind, people) = room.apply(heard)[0]
    assert kind is RoomEvent.ACTIVE_SPEAKERS_CHANGED and [one.identity for one in people] == ["ada"]
    assert room.active_speakers[0].level == 0.4
