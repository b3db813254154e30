"""Every route of signaling, tried by everybody; how often each may try, and who else's page may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from integration.callers import SESSION_ID, callers, routes_of

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
CALLERS = callers(SECRET, "an operator's key of thirty-two bytes or more")
ENDPOINT, VIEWER = "/v1/whep/{session_id}", "/v1/whep/{session_id}/{connection_id}"
SPEAK, SPEAKER = "/v1/whip/{session_id}", "/v1/whip/{session_id}/{connection_id}"
ROOM_ENDPOINTS = ("/v1/whep/rooms/{room_id}", "/v1/whip/rooms/{room_id}")
ROOM_CONNECTIONS = tuple(path + "/{connection_id}" for path in ROOM_ENDPOINTS)
SDP, FRAGMENT = {"Content-Type": "application/sdp"}, {"Content-Type": "application/trickle-ice-sdpfrag"}

Start = Callable[..., Awaitable[httpx.AsyncClient]]


@dataclass(frozen=True)
class Call:
    """A route, and what each caller gets who does not get `otherwise`."""

    method: str
    route: str
    otherwise: int
    answers: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.route.format(session_id=SESSION_ID, room_id=SESSION_ID, connection_id="nobody")


def viewers(method: str, route: str, status: int, headers: dict[str, str] | None = None) -> Call:
    """`status` for whoever may watch; an operator's key does not watch."""
    refused = dict.fromkeys(("feeder", "nothing granted", "other speaker"), 403)
    return Call(method, route, 401, {"speaker": status, "viewer": status, **refused}, headers or {})


def speakers(method: str, route: str, status: int, headers: dict[str, str] | None = None) -> Call:
    """`status` for whoever may send motion; a watch token and an operator's key do not."""
    refused = dict.fromkeys(("viewer", "nothing granted", "other speaker"), 403)
    return Call(method, route, 401, {"speaker": status, "feeder": status, **refused}, headers or {})


def rooms(method: str, route: str, headers: dict[str, str] | None = None) -> Call:
    """No session's token opens a room; test_signaling_room.py has what participants may do."""
    names = ("speaker", "viewer", "feeder", "nothing granted", "other speaker")
    return Call(method, route, 401, dict.fromkeys(names, 403), headers or {})


CALLS = [
    *(Call("GET", path, 200) for path in ("/livez", "/readyz", "/metrics")),
    *(
        Call(method, path, 200)
        for path in ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
        for method in ("GET", "HEAD")
    ),
    viewers("POST", ENDPOINT, 400, SDP),  # past the door, where an empty body is no offer
    viewers("PATCH", VIEWER, 404, FRAGMENT),
    viewers("DELETE", VIEWER, 404),
    speakers("POST", SPEAK, 400, SDP),
    speakers("PATCH", SPEAKER, 404, FRAGMENT),
    speakers("DELETE", SPEAKER, 404),
    *(rooms("POST", path, SDP) for path in ROOM_ENDPOINTS),
    *(rooms("PATCH", path, FRAGMENT) for path in ROOM_CONNECTIONS),
    *(rooms("DELETE", path) for path in ROOM_CONNECTIONS),
    rooms("POST", ROOM_CONNECTIONS[0], SDP),
    *(Call("OPTIONS", path, 204) for path in (ENDPOINT, VIEWER, SPEAK, SPEAKER, *ROOM_ENDPOINTS, *ROOM_CONNECTIONS)),
    *(Call("HEAD", path, 200) for path in (ENDPOINT, VIEWER, SPEAK, SPEAKER, *ROOM_ENDPOINTS, *ROOM_CONNECTIONS)),
    *(
        Call(method, path, 405)
        for path in (ENDPOINT, SPEAK, *ROOM_ENDPOINTS)
        for method in ("GET", "PUT", "PATCH", "DELETE")
    ),
    *(Call(method, path, 405) for path in (VIEWER, SPEAKER, *ROOM_CONNECTIONS) for method in ("GET", "PUT")),
    *(Call("POST", path, 405) for path in (VIEWER, SPEAKER, ROOM_CONNECTIONS[1])),
]


@pytest.fixture
def make_app(redis_server: EmbeddedRedis) -> Callable[..., FastAPI]:
    def make(**changes: Any) -> FastAPI:
        values = {"redis_url": redis_server.url, "token_secret": SECRET} | changes
        return create_app(SignalingSettings.model_validate(values))

    return make


@pytest.fixture
async def start(
    make_app: Callable[..., FastAPI], run_app: Callable[[FastAPI], Awaitable[str]], redis_server: EmbeddedRedis
) -> AsyncIterator[Start]:
    clients = []
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id=SESSION_ID, avatar_id="a", created_at_ms=0))

    async def start(**changes: Any) -> httpx.AsyncClient:
        url = await run_app(make_app(**changes))
        clients.append(httpx.AsyncClient(base_url=url, trust_env=False, timeout=15))
        return clients[-1]

    yield start
    for client in clients:
        await client.aclose()


async def test_who_may_call_what(start: Start) -> None:
    client = await start(joins_per_minute=10_000, updates_per_minute=10_000)
    got, expected = {}, {}
    for call in CALLS:
        for name, authorization in CALLERS.items():
            headers = call.headers | ({} if authorization is None else {"Authorization": authorization})
            answer = await client.request(call.method, call.path, headers=headers)
            got[call.method, call.route, name] = answer.status_code
            expected[call.method, call.route, name] = call.answers.get(name, call.otherwise)
            if answer.status_code in {401, 403}:
                assert answer.headers["content-type"] == "application/problem+json"
                assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
    assert got == expected


async def test_no_route_is_missing_from_the_table(
    make_app: Callable[..., FastAPI], run_app: Callable[[FastAPI], Awaitable[str]]
) -> None:
    app = make_app()
    await run_app(app)  # WHEP's routes come with the lifespan
    assert routes_of(app) == {(call.method, call.route) for call in CALLS}


async def test_a_session_s_offers_are_limited_whoever_sends_them(start: Start) -> None:
    client = await start(session_joins_per_minute=8)
    offer = "\r\n".join(
        (
            "v=0",
            "o=- 0 0 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            "m=video 9 UDP/TLS/RTP/SAVPF 96",
            "c=IN IP4 0.0.0.0",
            "a=rtpmap:96 H264/90000",
            "a=fmtp:96 packetization-mode=1",
            "a=ice-ufrag:abcd",
            "a=ice-pwd:abcdefghijklmnopqrstuvwx",
            "a=fingerprint:sha-256 00",
            "a=rtcp-mux",
            "a=recvonly",
            "",
        )
    )
    headers = {**SDP, "Authorization": str(CALLERS["viewer"])}
    answers = [
        await client.post(ENDPOINT.format(session_id=SESSION_ID), content=offer, headers=headers) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [409, 409, 429]
    assert answers[2].json()["detail"] == "too many requests from this session's clients"
    assert int(answers[2].headers["retry-after"]) > 0


async def test_answers_are_kept_to_themselves(start: Start) -> None:
    client = await start()
    for path in (ENDPOINT.format(session_id=SESSION_ID), "/livez", "/nowhere"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_cors_is_a_list_without_wildcards_or_cookies(start: Start) -> None:
    client = await start(cors_origins=["https://app.example"])
    for origin, named in (("https://app.example", True), ("https://evil.example", False), ("null", False)):
        for method in ("POST", "OPTIONS"):
            answer = await client.request(method, ENDPOINT.format(session_id=SESSION_ID), headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == (origin if named else None)
            assert "access-control-allow-credentials" not in answer.headers
