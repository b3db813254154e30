"""Participants of a room watch its sessions by WHEP, with real offers, while they are in the room and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection
from fastapi import FastAPI
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import TokenIssuer
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
SDP = {"Content-Type": "application/sdp"}


def person(name: str, state: ParticipantState = ParticipantState.ACTIVE) -> ParticipantRecord:
    return ParticipantRecord(
        participant_id=name, identity=name, name=name, grants=frozenset(), state=state, joined_at_ms=0
    )


@pytest_asyncio.fixture
async def room(redis: Redis) -> Redis:
    """A room with a session that a generator holds, its participant, a viewer, and one who waits in the lobby."""
    registry = Registry(redis)
    session = SessionRecord(session_id="hers", avatar_id="a", created_at_ms=0, room_id="room", participant_id="ada")
    await registry.keep_alive(session)
    await registry.hold("g", "hers", 600_000)
    record = RoomRecord(room_id="room", owner="x", created_at_ms=0, max_participants=9, empty_timeout_s=9, life_s=600)
    people = [person("ada"), person("viewer"), person("lobby", ParticipantState.WAITING)]
    await Rooms(redis).commit("room", "", Commit(600, record, people, (), (), {}, None))
    return redis


@pytest_asyncio.fixture
async def signaling(
    redis_server: EmbeddedRedis, run_app: Callable[[FastAPI], Awaitable[str]]
) -> AsyncIterator[httpx.AsyncClient]:
    settings = SignalingSettings.model_validate({"redis_url": redis_server.url, "token_secret": SECRET})
    url = await run_app(create_app(settings))
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        yield client


@pytest_asyncio.fixture
async def offer() -> AsyncIterator[str]:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    yield peer.localDescription.sdp
    await peer.close()


def token(name: str, room_id: str = "room", grant: Grant = Grant.WATCH) -> dict[str, str]:
    return {"Authorization": f"Bearer {TokenIssuer(SECRET).issue(name, [grant], room_id=room_id)}"}


async def post(client: httpx.AsyncClient, offer: str, headers: dict[str, str]) -> httpx.Response:
    return await client.post("/v1/whep/hers", content=offer, headers=SDP | headers)


@pytest.mark.usefixtures("room")
async def test_who_may_watch(signaling: httpx.AsyncClient, offer: str) -> None:
    expected: dict[str, tuple[dict[str, str], int, str]] = {
        "another of the room": (token("viewer"), 201, ""),
        "the speaker itself": (token("ada"), 201, ""),
        "without the grant": (token("viewer", grant=Grant.PUBLISH), 403, "token-not-granted"),
        "of another room": (token("viewer", "another"), 403, "token-not-granted"),
        "in the lobby": (token("lobby"), 403, "not-admitted"),
        "removed": (token("removed"), 404, "participant-not-found"),
    }
    for who, (headers, status, code) in expected.items():
        answer = await post(signaling, offer, headers)
        assert answer.status_code == status, (who, answer.text)
        if code:
            assert answer.json()["type"] == f"urn:mien:problem:{code}"
        else:
            location = answer.headers["location"]
            assert (await signaling.delete(location, headers=token("viewer", "another"))).status_code == 403
            assert (await signaling.delete(location, headers=headers)).status_code == 200


@pytest.mark.parametrize("how", ["removed", "the room ended"])
async def test_a_participant_that_has_left_sees_nothing_any_more(
    signaling: httpx.AsyncClient, offer: str, room: Redis, how: str
) -> None:
    location = (await post(signaling, offer, token("viewer"))).headers["location"]
    other = (await post(signaling, offer, token("ada"))).headers["location"]
    if how == "removed":
        await room.zadd(keys.room_gone("room"), {"viewer": 1})
    else:
        await room.set(keys.room_ended("room"), "ended", ex=60)
    await departs(signaling, location, token("viewer"))
    if how == "removed":
        assert (await signaling.delete(other, headers=token("ada"))).status_code == 200, "others watch on"


async def departs(client: httpx.AsyncClient, location: str, headers: dict[str, str]) -> None:
    metric: Any = 'mien_viewers_gone_total{reason="departed"} '
    async with asyncio.timeout(30):
        while not any(
            line.startswith(metric) and float(line.split()[-1]) >= 1
            for line in (await client.get("/metrics")).text.splitlines()
        ):
            await asyncio.sleep(0.05)
    fragment = {"Content-Type": "application/trickle-ice-sdpfrag"}
    assert (await client.patch(location, content="", headers=headers | fragment)).status_code == 404


async def test_a_redis_that_lost_its_rooms_ends_no_viewer(
    signaling: httpx.AsyncClient, offer: str, room: Redis
) -> None:
    location = (await post(signaling, offer, token("viewer"))).headers["location"]
    await room.delete(keys.room("room"), keys.room_participants("room"))
    await asyncio.sleep(1.5)  # several checks
    assert (await signaling.delete(location, headers=token("viewer"))).status_code == 200
