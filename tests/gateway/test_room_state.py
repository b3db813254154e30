"""What may happen in a room: single transitions, and what holds after any series of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_gateway import room_state
from mien_gateway.room_state import Change, Joining, NoSuchParticipant, Room, RoomFull, RoomLimits, RoomLocked
from mien_shared.bus.room_messages import (
    Audience,
    EventType,
    LeaveReason,
    ParticipantRecord,
    ParticipantState,
    Presence,
    RoomEnd,
    RoomEvent,
    RoomRecord,
)
from mien_shared.http.principal import Grant

RECORD = RoomRecord(
    room_id="r",
    owner="key",
    created_at_ms=1_000_000,
    max_participants=3,
    empty_timeout_s=300,
    empty_since_ms=1_000_000,
    life_s=400,
)
EMPTY = Room(RECORD, {}, {}, 1_000_000)
LIMITS = RoomLimits(join_s=120, departure_s=60, max_room_s=3600)
SPEAKER, HOST = frozenset({Grant.PUBLISH, Grant.WATCH}), frozenset({Grant.WATCH, Grant.MODERATE})


def after(room: Room, change: Change, passed_ms: int = 1) -> Room:
    """The room as the registry has it after a commit."""
    gone = {one.participant_id for one in change.gone}
    people = {name: one for name, one in room.participants.items() if name not in gone}
    people |= {one.participant_id: one for one in change.put}
    presence = {name: one for name, one in room.presence.items() if name not in gone}
    presence |= {name: Presence(connection_id=one, seen_ms=room.now_ms) for name, one in change.connected.items()}
    return Room(change.record or room.record, people, presence, room.now_ms + passed_ms)


def wish(name: str, grants: frozenset[Grant] = SPEAKER) -> Joining:
    return Joining(f"id-{name}", name, name.title(), grants)


def with_people(*names: str, room: Room = EMPTY, connected: bool = True) -> Room:
    for name in names:
        room = after(room, room_state.join(room, wish(name)))
        if connected:
            room = after(room, room_state.connect(room, f"id-{name}", "c"))
    return room


def kinds(change: Change) -> list[EventType]:
    return [event.type for event in change.events]


def test_a_participant_is_announced_when_it_connects_and_when_it_leaves() -> None:
    room = after(EMPTY, room_state.join(EMPTY, wish("ada")))
    assert room.participants["id-ada"].state is ParticipantState.INVITED
    assert room.record.empty_since_ms is None
    entered = room_state.connect(room, "id-ada", "c1")
    assert kinds(entered) == [EventType.CONNECTED, EventType.PARTICIPANT_JOINED]
    room = after(room, entered)
    assert kinds(room_state.connect(room, "id-ada", "c2")) == [EventType.CONNECTED]
    left = room_state.leave(room, "id-ada", LeaveReason.LEFT)
    assert kinds(left) == [EventType.PARTICIPANT_LEFT] and left.record is not None
    assert left.record.empty_since_ms == room.now_ms


def test_one_that_never_connected_leaves_unseen() -> None:
    room = with_people("ada", connected=False)
    assert room_state.leave(room, "id-ada", LeaveReason.NOT_CONNECTED).events == ()


def test_full_and_locked_rooms_take_no_new_identity() -> None:
    room = with_people("ada", "bob", "eve")
    with pytest.raises(RoomFull):
        room_state.join(room, wish("mallory"))
    locked = after(with_people("ada"), room_state.lock(with_people("ada"), True))
    with pytest.raises(RoomLocked):
        room_state.join(locked, wish("mallory"))
    for taken in (room, locked):
        again = room_state.join(taken, replace(wish("ada", HOST), participant_id="another"))
        (changed,) = again.put
        assert (changed.participant_id, changed.grants) == ("id-ada", HOST)
        assert again.record is None and not again.gone


def test_the_lobby() -> None:
    room = replace(EMPTY, record=RECORD.model_copy(update={"lobby": True}))
    room = with_people("ada", room=room)
    waiting = room.participants["id-ada"]
    assert waiting.state is ParticipantState.WAITING
    assert room_state.join(room, wish("host", HOST)).put[0].state is ParticipantState.INVITED
    assert kinds(room_state.connect(room, "id-ada", "c2")) == [EventType.CONNECTED], "one knock is enough"
    admitted = room_state.admit(room, "id-ada", "session")
    assert kinds(admitted) == [EventType.PARTICIPANT_JOINED]
    assert (admitted.put[0].state, admitted.put[0].session_id) == (ParticipantState.ACTIVE, "session")
    assert admitted.put[0].joined_at_ms == room.now_ms
    assert not room_state.admit(after(room, admitted), "id-ada", "other"), "a second time changes nothing"
    refused = room_state.leave(room, "id-ada", LeaveReason.REMOVED)
    assert [event.to for event in refused.events] == [Audience.MODERATORS]


def test_one_that_is_admitted_before_it_connects_joins_when_it_does() -> None:
    room = replace(EMPTY, record=RECORD.model_copy(update={"lobby": True}))
    room = with_people("ada", room=room, connected=False)
    room = after(room, room_state.admit(room, "id-ada"))
    assert room.participants["id-ada"].state is ParticipantState.INVITED
    assert EventType.PARTICIPANT_JOINED in kinds(room_state.connect(room, "id-ada", "c"))


def test_what_is_as_asked_changes_nothing() -> None:
    room = with_people("ada")
    assert not room_state.update(room, "id-ada", muted=False, hand=False)
    assert not room_state.update(room, "id-ada")
    assert not room_state.lock(room, False)
    assert not room_state.join(room, wish("ada"))
    assert not room_state.set_avatar(room, "id-ada", None, None)
    assert kinds(room_state.update(room, "id-ada", muted=True)) == [EventType.PARTICIPANT_UPDATED]


def test_nobody_can_be_changed_who_is_not_there() -> None:
    decisions: list[Callable[[], Change]] = [
        lambda: room_state.connect(EMPTY, "x", "c"),
        lambda: room_state.admit(EMPTY, "x"),
        lambda: room_state.update(EMPTY, "x", muted=True),
        lambda: room_state.set_avatar(EMPTY, "x", None, None),
        lambda: room_state.leave(EMPTY, "x", LeaveReason.LEFT),
    ]
    for decide in decisions:
        with pytest.raises(NoSuchParticipant):
            decide()


@pytest.mark.parametrize(
    ("room", "passed_s", "due"),
    [
        (EMPTY, 300, ()),
        (EMPTY, 301, RoomEnd.EMPTY),
        (with_people("ada"), 60, ()),
        (with_people("ada"), 61, (("id-ada", LeaveReason.AWAY),)),
        (with_people("ada", connected=False), 120, ()),
        (with_people("ada", connected=False), 121, (("id-ada", LeaveReason.NOT_CONNECTED),)),
        (with_people("ada"), 3601, RoomEnd.DURATION),
    ],
)
def test_limits(room: Room, passed_s: int, due: object) -> None:
    assert room_state.overdue(replace(room, now_ms=1_000_000 + 1000 * passed_s), LIMITS) == due


def test_no_limit_on_the_duration() -> None:
    room = replace(with_people("ada"), presence={"id-ada": Presence(connection_id="c", seen_ms=10**12)}, now_ms=10**12)
    assert room_state.overdue(room, replace(LIMITS, max_room_s=0)) == ()


def test_who_sees_what() -> None:
    base = {"participant_id": "x", "identity": "x", "name": "x", "joined_at_ms": 1}
    active, waiting = ParticipantState.ACTIVE, ParticipantState.WAITING
    guest = ParticipantRecord(**base, grants=SPEAKER, state=active)
    host = ParticipantRecord(**base, grants=HOST, state=active)
    outside = ParticipantRecord(**base, grants=HOST, state=waiting)
    seen = {
        to: [room_state.sees(one, RoomEvent(type=EventType.MESSAGE, to=to)) for one in (guest, host, outside)]
        for to in Audience
    }
    assert seen == {
        Audience.ROOM: [True, True, False],
        Audience.MODERATORS: [False, True, False],
        Audience.EVERYONE: [True, True, True],
        Audience.GATEWAYS: [False, False, False],
    }


NAMES = st.sampled_from(["ada", "bob", "eve", "dan", "host"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "connect", "admit", "leave", "mute", "lock", "unlock", "wait"]),
        NAMES,
    ),
    max_size=40,
)


def step(room: Room, what: str, name: str) -> Change:
    changes: dict[str, Callable[[], Change]] = {
        "join": lambda: room_state.join(room, wish(name, HOST if name == "host" else SPEAKER)),
        "connect": lambda: room_state.connect(room, f"id-{name}", "c"),
        "admit": lambda: room_state.admit(room, f"id-{name}"),
        "leave": lambda: room_state.leave(room, f"id-{name}", LeaveReason.LEFT),
        "mute": lambda: room_state.update(room, f"id-{name}", muted=True),
        "lock": lambda: room_state.lock(room, True),
        "unlock": lambda: room_state.lock(room, False),
        "wait": Change,
    }
    return changes[what]()


@given(STEPS, st.booleans())
def test_what_clients_are_told_is_what_the_room_is(steps: list[tuple[str, str]], lobby: bool) -> None:
    """A client that applies the events knows exactly the active participants, in the state that they are in."""
    room = replace(EMPTY, record=RECORD.model_copy(update={"lobby": lobby}))
    told: dict[str, ParticipantRecord] = {}
    for what, name in steps:
        known = room.of_identity(name)
        try:
            change = step(room, what, name)
        except (RoomFull, RoomLocked, NoSuchParticipant):
            assert known is None
            continue
        if what == "join" and room.record.locked:
            assert known is not None
        for event in change.events:
            if event.type in {EventType.PARTICIPANT_JOINED, EventType.PARTICIPANT_UPDATED}:
                assert event.participant is not None
                if event.to is Audience.ROOM:
                    told[event.participant.participant_id] = event.participant
            elif event.type is EventType.PARTICIPANT_LEFT and event.to is Audience.ROOM:
                del told[event.participant_id or ""]
        room = after(room, change)
        active = {name: one for name, one in room.participants.items() if one.state is ParticipantState.ACTIVE}
        assert told == active
        assert len(room.participants) <= room.record.max_participants
        assert len({one.identity for one in room.participants.values()}) == len(room.participants)
        assert (room.record.empty_since_ms is None) == bool(room.participants)
    end = room_state.end(room, RoomEnd.ENDED)
    assert set(end.gone) == set(room.participants.values()) and kinds(end) == [EventType.BYE]
