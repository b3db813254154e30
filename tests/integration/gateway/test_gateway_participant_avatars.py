"""Avatars in the hands of participants: the gallery, their own pictures, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.gateway.room_calls import bearer, joined, new_room

from mien_gateway.bundled import bundled_ids

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
DRAWN = (ROOT / "services/gateway/mien_gateway/bundled/mien.png").read_bytes()


async def upload(gateway: Any, who: dict[str, Any], data: bytes = DRAWN) -> Any:
    return await gateway.anyone.post(
        "/v1/avatars", files={"image": ("me", data), "consent": (None, "self")}, headers=bearer(who)
    )


async def listed(gateway: Any, who: dict[str, Any]) -> list[str]:
    answer = await gateway.anyone.get("/v1/avatars", headers=bearer(who))
    assert answer.status_code == 200, answer.text
    return [one["avatar_id"] for one in answer.json()["avatars"]]


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:mien:problem:")


async def test_a_participant_chooses_among_bundled_avatars_and_its_own_picture(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway()
    await start_generator(capacity=8)
    room_id = await new_room(gateway)
    ada = await joined(gateway, room_id, "ada", avatar_id="mien")
    bob = await joined(gateway, room_id, "bob", avatar_id="mien")
    assert await listed(gateway, ada) == bundled_ids(), "not what operators uploaded"

    made = await upload(gateway, ada)
    assert made.status_code == 201, made.text
    own = made.json()["avatar_id"]
    assert await listed(gateway, ada) == sorted([*bundled_ids(), own])
    assert own not in await listed(gateway, bob)
    assert own in await listed(gateway, await joined(gateway, room_id, "ada")), "the same person has another token"
    elsewhere = await joined(gateway, await new_room(gateway), "ada")
    assert own in await listed(gateway, elsewhere), "and its pictures in the next meeting too"

    for who, avatar_id, status in (
        (ada, own, 200),
        (ada, "noor", 200),
        (ada, "someone", 403),
        (bob, own, 403),
        (bob, "noor", 200),
    ):
        seen = await gateway.anyone.get(f"/v1/avatars/{avatar_id}/picture", headers=bearer(who))
        assert seen.status_code == status, avatar_id
        record = await gateway.anyone.get(f"/v1/avatars/{avatar_id}", headers=bearer(who))
        assert record.status_code == status, avatar_id
        assert status == 403 or len(record.json()["keypoints"]) == 10

    person = f"/v1/rooms/{room_id}/participants"
    chosen = {"avatar_id": own}
    stolen = await gateway.anyone.patch(f"{person}/{bob['participant_id']}", json=chosen, headers=bearer(bob))
    assert code(stolen) == (403, "token-not-granted")
    assert stolen.json()["detail"] == "this picture belongs to another participant"
    mine = await gateway.anyone.patch(f"{person}/{ada['participant_id']}", json=chosen, headers=bearer(ada))
    assert (mine.status_code, mine.json()["avatar_id"]) == (200, own)
    seen = await gateway.anyone.get(f"/v1/avatars/{own}/picture", headers=bearer(bob))
    assert seen.status_code == 200, "ada shows it in the room now"

    gone = await gateway.anyone.delete(f"/v1/avatars/{own}", headers=bearer(bob))
    assert code(gone) == (403, "token-not-granted")
    assert (await gateway.anyone.delete("/v1/avatars/mien", headers=bearer(ada))).status_code == 409
    assert (await gateway.anyone.delete(f"/v1/avatars/{own}", headers=bearer(ada))).status_code == 204
    assert await listed(gateway, ada) == bundled_ids()


async def test_a_participants_uploads_are_few_and_take_a_grant(start_gateway: Any) -> None:
    gateway = await start_gateway(max_avatars_per_participant=2, participant_uploads_per_minute=600)
    room_id = await new_room(gateway, lobby=True)
    host = await joined(gateway, room_id, "host", "publish", "watch", "moderate")
    listener = await joined(gateway, room_id, "listener", "watch", "moderate")
    waiting = await joined(gateway, room_id, "waiting")
    assert code(await upload(gateway, listener)) == (403, "token-not-granted")
    assert code(await upload(gateway, waiting)) == (403, "not-admitted")
    assert await listed(gateway, waiting) == bundled_ids(), "it may look while it waits"

    refused = await upload(gateway, host, b"no picture")
    assert code(refused) == (415, "not-an-image")
    answers = [await upload(gateway, host) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[2].json()["detail"] == "a participant may have at most 2 pictures; delete one first"

    person = f"/v1/rooms/{room_id}/participants/{host['participant_id']}"
    assert (await gateway.anyone.delete(person, headers=bearer(host))).status_code == 204
    assert code(await gateway.anyone.get("/v1/avatars", headers=bearer(host))) == (404, "participant-not-found")


async def test_a_participant_uploads_not_too_often_and_others_still_may(start_gateway: Any) -> None:
    gateway = await start_gateway(participant_uploads_per_minute=1, max_avatars_per_participant=0)
    room_id = await new_room(gateway)
    ada, bob = [await joined(gateway, room_id, name) for name in ("ada", "bob")]
    assert code(await upload(gateway, ada)) == (409, "avatar-limit")
    refused = await upload(gateway, ada)
    assert code(refused) == (429, "too-many-requests")
    assert refused.json()["detail"] == "too many requests from this participant"
    assert code(await upload(gateway, bob)) == (409, "avatar-limit")
