"""A participant of a room speaks by WHIP: in its own session alone, and not while it is muted."""

from __future__ import annotations

import pytest
from integration.test_signaling_media import SESSION
from integration.test_signaling_voice import WORDS, World, world
from integration.voice_peers import SECRET, Talker

from mien_shared.bus.registry import Registry
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import TokenIssuer

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.integration


def person(name: str, *, muted: bool = False, state: ParticipantState = ParticipantState.ACTIVE) -> ParticipantRecord:
    return ParticipantRecord(
        participant_id=name, identity=name, name=name, grants=frozenset(), state=state, joined_at_ms=0, muted=muted
    )


def token(name: str, grant: Grant = Grant.PUBLISH) -> dict[str, str]:
    return {"Authorization": f"Bearer {TokenIssuer(SECRET).issue(name, [grant], room_id='room')}"}


async def people(world: World, *participants: ParticipantRecord) -> None:
    """The room's participants from now on."""
    rooms = Rooms(world.publisher.redis)
    version = (await rooms.read("room")).version
    record = RoomRecord(room_id="room", owner="x", created_at_ms=0, max_participants=9, empty_timeout_s=9, life_s=600)
    await rooms.commit("room", version, Commit(600, record, participants, (), (), {}, None))


@pytest.fixture
async def room(world: World) -> World:
    """The session is the avatar of Ada, who is in a room."""
    world.publisher.session = SESSION.model_copy(update={"room_id": "room", "participant_id": "ada"})
    await Registry(world.publisher.redis).keep_alive(world.publisher.session)
    await people(world, person("ada"), person("bob"), person("lobby", state=ParticipantState.WAITING))
    return world


async def test_who_may_speak(room: World) -> None:
    for who, headers, status, code in (
        ("another participant", token("bob"), 403, "token-not-granted"),
        ("without the grant", token("ada", Grant.WATCH), 403, "token-not-granted"),
        ("in the lobby", token("lobby"), 403, "token-not-granted"),
        ("nobody", {}, 401, "token-missing"),
    ):
        talker = Talker(room.client, SESSION.session_id, headers=headers or {"X-Nobody": "1"})
        room.stack.push_async_callback(talker.close)
        answer = await talker.offer()
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:mien:problem:{code}"), who
    speaking = await room.talker(headers=token("ada"))
    assert (await room.client.delete(speaking.url, headers=token("bob"))).status_code == 403
    assert (await room.client.delete(speaking.url, headers=token("ada"))).status_code == 200


async def test_a_muted_participant_is_not_heard(room: World) -> None:
    listener = await room.listener()
    talker = await room.talker(headers=token("ada"))
    await talker.talk(WORDS.__getitem__, 20)
    await listener.hear(20)
    await people(room, person("ada", muted=True))
    heard, first = len(listener.voice.packets), 20
    while await room.metric('mien_voice_packets_received_total{result="muted"}') < 10:
        await talker.talk(WORDS.__getitem__, 10, first=first % 300)
        first += 10
    await talker.talk(WORDS.__getitem__, 40, first=340)  # longer than voice is held back for the lips
    silent_from = len(listener.voice.packets)
    await talker.talk(WORDS.__getitem__, 20, first=300)
    assert len(listener.voice.packets) == silent_from >= heard
    await people(room, person("ada"))
    while len(listener.voice.packets) < silent_from + 5:
        await talker.talk(WORDS.__getitem__, 10, first=320)
    assert listener.voice.packets[-1].payload in WORDS[320:330]
