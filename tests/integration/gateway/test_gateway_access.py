"""Every route of the gateway, tried by everybody; and how often each may try."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from integration.callers import OTHER_SESSION_ID, SESSION_ID, callers, now_ms, routes_of
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

import mien_web
from mien_gateway.app import create_app
from mien_gateway.settings import GatewaySettings
from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import TokenIssuer

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
API_KEY = "an operator's key of thirty-two bytes or more"
ROOM_ID = "room"
CALLERS = callers(SECRET, API_KEY) | {
    name: f"Bearer {TokenIssuer(secret).issue(participant_id, grants, room_id=room_id)}"
    for name, secret, participant_id, grants, room_id in (
        ("host", SECRET, "host", [Grant.WATCH, Grant.MODERATE], ROOM_ID),
        ("guest", SECRET, "guest", [Grant.WATCH, Grant.PUBLISH], ROOM_ID),
        ("lobby", SECRET, "lobby", [Grant.WATCH, Grant.PUBLISH], ROOM_ID),
        ("other room", SECRET, "host", [Grant.WATCH, Grant.MODERATE], "another room"),
        ("forger to the room", "somebody else's secret of thirty-two bytes", "host", list(Grant), ROOM_ID),
    )
}
STRANGERS = (
    "nobody",
    "basic",
    "garbage",
    "wrong key",
    "forger",
    "unsigned",
    "expired",
    "other audience",
    "other issuer",
    "forger to the room",
)


@dataclass(frozen=True)
class Call:
    """A route, how it is called here, and what each caller gets who does not get `otherwise`."""

    method: str
    route: str
    path: str
    answers: dict[str, int]
    otherwise: int
    request: dict[str, Any]


def everyone(method: str, path: str, status: int) -> Call:
    return Call(method, path, path.replace("{path:path}", ""), {}, status, {})


def operators(method: str, route: str, status: int, **request: Any) -> Call:
    path = route.format(
        avatar_id="someone", session_id=SESSION_ID, viewer_id="somebody", room_id=ROOM_ID, webhook_id="hook"
    )
    return Call(method, route, path, {"operator": status}, 401, request)


def of_session(method: str, route: str, answers: dict[str, int]) -> Call:
    path = route.format(session_id=SESSION_ID, avatar_id="someone")
    return Call(method, route, path, dict.fromkeys(STRANGERS, 401) | answers, 403, {})


def of_room(method: str, route: str, answers: dict[str, int], **request: Any) -> Call:
    path = route.format(room_id=ROOM_ID, participant_id="guest")
    return Call(method, route, path, dict.fromkeys(STRANGERS, 401) | answers, 403, request)


def of_avatars(method: str, route: str, answers: dict[str, int], **request: Any) -> Call:
    """A call for operators and for participants that may publish; no session's token is enough."""
    refused = {"host": 403, "guest": 403, "lobby": 403, "other room": 403}
    return Call(method, route, route.format(avatar_id="someone"), refused | answers, 401, request)


NO_PICTURE: dict[str, Any] = {"image": ("a", b"hello"), "consent": (None, "drawn")}
SEEN = {"operator": 200, "speaker": 200, "viewer": 200, "feeder": 200}
MEMBERS = {"operator": 200, "host": 200, "guest": 200}
MODERATORS = {"operator": 200, "host": 200}
ROOM, PERSON = "/v1/rooms/{room_id}", "/v1/rooms/{room_id}/participants/{participant_id}"
CALLS = [
    everyone("GET", "/livez", 200),
    everyone("GET", "/readyz", 200),
    everyone("GET", "/metrics", 200),
    everyone("GET", "/openapi.json", 200),
    everyone("HEAD", "/openapi.json", 200),
    everyone("GET", "/docs", 200),
    everyone("HEAD", "/docs", 200),
    everyone("GET", "/docs/oauth2-redirect", 200),
    everyone("HEAD", "/docs/oauth2-redirect", 200),
    everyone("GET", "/redoc", 200),
    everyone("HEAD", "/redoc", 200),
    everyone("GET", "/", 200),
    Call("GET", "/room/{room_id}", "/room/demo", {}, 200, {}),
    Call("MOUNT", "/static", "/static/app.js", {}, 200, {}),
    of_avatars("POST", "/v1/avatars", {"operator": 415, "guest": 415}, files=NO_PICTURE),
    of_avatars("GET", "/v1/avatars", {"operator": 200, "guest": 200, "lobby": 200}),
    of_avatars("DELETE", "/v1/avatars/{avatar_id}", {"operator": 204}),  # the guest did not upload this one
    operators("POST", "/v1/sessions", 503, json={"avatar_id": "someone"}),  # there is no generator
    operators("GET", "/v1/sessions", 200),
    operators("GET", "/v1/sessions/{session_id}/viewers", 200),
    operators("DELETE", "/v1/sessions/{session_id}/viewers/{viewer_id}", 404),  # nobody watches
    operators("POST", "/v1/sessions/{session_id}/egress", 409),  # no signaling service has an SFU
    operators("GET", "/v1/sessions/{session_id}/egress", 404),  # none was ordered
    operators("DELETE", "/v1/sessions/{session_id}/egress", 404),
    of_session("GET", "/v1/avatars/{avatar_id}", SEEN),
    of_session("GET", "/v1/avatars/{avatar_id}/picture", SEEN),
    of_session("GET", "/v1/sessions/{session_id}", SEEN),
    of_session("DELETE", "/v1/sessions/{session_id}", {"operator": 204, "speaker": 204}),
    # An operator may end a session, but not speak in somebody else's place.
    of_session("WS", "/v1/sessions/{session_id}/uplink", {"speaker": 101, "feeder": 101, "operator": 401}),
    operators("POST", "/v1/rooms", 201, json={"name": "there"}),
    operators("GET", "/v1/rooms", 200),
    operators("POST", ROOM + "/participants", 201, json={"identity": "guest"}),
    of_room("GET", ROOM, MEMBERS),
    of_room("PATCH", ROOM, MODERATORS, json={"locked": False}),
    of_room("DELETE", ROOM, {"operator": 204, "host": 204}),
    of_room("GET", ROOM + "/participants", MEMBERS),
    of_room("GET", PERSON, MEMBERS | {"lobby": 403}),
    of_room("PATCH", PERSON, MEMBERS, json={}),
    of_room("PATCH", PERSON, MODERATORS | {"guest": 200}, json={"muted": True}),
    of_room("PATCH", PERSON, {"guest": 200}, json={"muted": False}),
    of_room("PATCH", PERSON, MODERATORS, json={"admitted": True}),
    of_room("DELETE", PERSON, {"operator": 204, "host": 204, "guest": 204}),
    of_room("WS", ROOM + "/events", {"host": 101, "guest": 101, "lobby": 101, "operator": 401}),
    operators("POST", "/v1/webhooks", 422, json={"url": "https://127.0.0.1/"}),
    operators("GET", "/v1/webhooks", 200),
    operators("DELETE", "/v1/webhooks/{webhook_id}", 404),
    # Servers without credentials are everybody's; a token of any session gets those of its own session.
    Call(
        "GET",
        "/v1/ice-servers",
        "/v1/ice-servers",
        dict.fromkeys(STRANGERS, 401)
        | {"nobody": 200, "basic": 200, "nothing granted": 403}
        | dict.fromkeys((*SEEN, "other speaker", "host", "guest", "lobby", "other room"), 200),
        403,
        {},
    ),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.route}")
async def test_who_may_call_what(start_gateway: Any, redis_server: EmbeddedRedis, call: Call) -> None:
    gateway = await start_gateway(web_root=mien_web.ROOT)
    got, expected = {}, {}
    async with open_redis(redis_server.url) as redis:
        registry = Registry(redis)
        for name, authorization in CALLERS.items():
            if call.method == "DELETE" and call.answers.get(name) == 204:
                continue
            await there_is_a_room(redis)
            await registry.keep_alive(SessionRecord(session_id=SESSION_ID, avatar_id="someone", created_at_ms=now_ms()))
            await registry.keep_alive(
                SessionRecord(session_id=OTHER_SESSION_ID, avatar_id="else", created_at_ms=now_ms())
            )
            got[name] = await status_of(gateway, call, authorization)
            expected[name] = call.answers.get(name, call.otherwise)
    assert got == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("operator", "/v1/avatars/someone"),
        ("operator", f"/v1/sessions/{SESSION_ID}"),
        ("speaker", f"/v1/sessions/{SESSION_ID}"),
        *((name, f"/v1/rooms/{ROOM_ID}") for name in ("operator", "host")),
        *((name, f"/v1/rooms/{ROOM_ID}/participants/guest") for name in ("operator", "host", "guest")),
    ],
)
async def test_who_may_delete(start_gateway: Any, redis_server: EmbeddedRedis, name: str, path: str) -> None:
    gateway = await start_gateway()
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id=SESSION_ID, avatar_id="a", created_at_ms=now_ms()))
        await there_is_a_room(redis)
    headers = {"Authorization": CALLERS[name]}
    assert [(await gateway.anyone.delete(path, headers=headers)).status_code for _ in range(2)] == [204, 404]


async def there_is_a_room(redis: Redis) -> None:
    """A room with a host and a guest in it, and one who waits in the lobby; whatever was there before."""
    await redis.delete(keys.room(ROOM_ID), keys.room_version(ROOM_ID), keys.room_gone(ROOM_ID))
    record = RoomRecord(
        room_id=ROOM_ID, owner="x", created_at_ms=now_ms(), max_participants=9, empty_timeout_s=300, life_s=300
    )
    people = [
        ParticipantRecord(
            participant_id=name, identity=name, name=name, grants=frozenset(grants), state=state, joined_at_ms=now_ms()
        )
        for name, grants, state in (
            ("host", {Grant.WATCH, Grant.MODERATE}, ParticipantState.ACTIVE),
            ("guest", {Grant.WATCH, Grant.PUBLISH}, ParticipantState.ACTIVE),
            ("lobby", {Grant.WATCH, Grant.PUBLISH}, ParticipantState.WAITING),
        )
    ]
    await Rooms(redis).commit(ROOM_ID, "", Commit(300, record, people, (), (), {}, None))


async def status_of(gateway: Any, call: Call, authorization: str | None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    if call.method == "WS":
        return await handshake(gateway.url.replace("http", "ws") + call.path, headers)
    method = "GET" if call.method == "MOUNT" else call.method
    answer: httpx.Response = await gateway.anyone.request(method, call.path, headers=headers, **call.request)
    if answer.status_code in {401, 403}:
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
    return answer.status_code


async def handshake(url: str, headers: dict[str, str], subprotocols: Sequence[str] = ()) -> int:
    offered = [Subprotocol(one) for one in subprotocols]
    try:
        async with connect(url, additional_headers=headers, subprotocols=offered or None, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_no_route_is_missing_from_the_table(make_settings: Callable[..., GatewaySettings]) -> None:
    app: FastAPI = create_app(make_settings(web_root=mien_web.ROOT))
    assert routes_of(app) == {(call.method, call.route) for call in CALLS}


async def test_where_the_deployment_is_open_only_feeding_ending_and_events_take_a_token(
    start_gateway: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway(web_root=mien_web.ROOT, demo_open=True, api_keys=[])
    closed = {
        *(("WS", "/v1/sessions/{session_id}/uplink"), ("DELETE", "/v1/sessions/{session_id}")),
        ("WS", ROOM + "/events"),
    }
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(
            SessionRecord(session_id=SESSION_ID, avatar_id="someone", created_at_ms=now_ms())
        )
    for call in CALLS:
        status = await status_of(gateway, call, None)
        assert (status == 401) == ((call.method, call.route) in closed), (call, status)


async def test_where_the_deployment_is_open_moderation_takes_a_token(
    start_gateway: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[])
    async with open_redis(redis_server.url) as redis:
        await there_is_a_room(redis)
    room = f"/v1/rooms/{ROOM_ID}"
    assert (await gateway.anyone.get(room)).status_code == 200
    assert (await gateway.anyone.get(room, headers={"Authorization": CALLERS["lobby"]})).status_code == 403
    for method, path, changes in (
        ("DELETE", room, None),
        ("PATCH", room, {"locked": True}),
        ("PATCH", f"{room}/participants/guest", {"muted": True}),
        ("DELETE", f"{room}/participants/guest", None),
    ):
        answers = [
            (await gateway.anyone.request(method, path, json=changes, headers=headers)).status_code
            for headers in ({}, {"Authorization": CALLERS["lobby"]})
        ]
        assert answers == [403, 403], (method, path)


async def test_an_uplink_s_token_may_come_as_a_subprotocol(start_gateway: Any, redis_server: EmbeddedRedis) -> None:
    gateway = await start_gateway()
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(
            SessionRecord(session_id=SESSION_ID, avatar_id="someone", created_at_ms=now_ms())
        )
    url = f"{gateway.url.replace('http', 'ws')}/v1/sessions/{SESSION_ID}/uplink"
    for name, status in (("speaker", 101), ("viewer", 403), ("operator", 401), ("garbage", 401)):
        token = str(CALLERS[name]).removeprefix("Bearer ").replace(" ", "").replace("'", "")  # as a subprotocol can be
        assert await handshake(url, {}, ["mien.v1", f"bearer.{token}"]) == status


LIMITS: dict[str, tuple[dict[str, int], int, Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]]] = {
    "requests": ({"requests_per_minute": 8}, 2, lambda http: http.get("/v1/ice-servers")),
    "sessions": (
        {"sessions_per_minute": 8},
        2,
        lambda http: http.post("/v1/sessions", json={"avatar_id": "someone"}),
    ),
    "uploads": ({"uploads_per_minute": 8}, 2, lambda http: http.post("/v1/avatars", files=NO_PICTURE)),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_more_than_a_caller_may_ask_is_refused_until_later(start_gateway: Any, name: str) -> None:
    changes, burst, call = LIMITS[name]
    gateway = await start_gateway(**changes)
    assert 429 not in [(await call(gateway.http)).status_code for _ in range(burst)]
    answer = await call(gateway.http)
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:mien:problem:too-many-requests")
    assert answer.json()["detail"] == "too many requests from this address"
    assert 1 <= int(answer.headers["retry-after"]) <= 8
    assert (await gateway.http.get("/livez")).status_code == 200, "probes and scrapes are not counted"
    assert await gateway.metric("mien_requests_refused_total", reason="too-many-requests") == 1


async def test_uplinks_count_against_their_address_too(start_gateway: Any) -> None:
    gateway = await start_gateway(requests_per_minute=8)
    url = f"{gateway.url.replace('http', 'ws')}/v1/sessions/{SESSION_ID}/uplink"
    assert [await handshake(url, {}) for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/one", "/livez", "/nowhere"])
async def test_no_body_is_longer_than_its_limit(start_gateway: Any, method: str, path: str) -> None:
    gateway = await start_gateway(max_body_bytes=1024)

    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 1024

    for content in (b" " * 1025, endless()):
        answer = await gateway.http.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:mien:problem:body-too-large")
    assert (await gateway.http.request(method, path, content=b" " * 1024)).status_code != 413


async def test_answers_are_kept_to_themselves(start_gateway: Any) -> None:
    gateway = await start_gateway(web_root=mien_web.ROOT)
    for path in ("/v1/sessions", "/v1/avatars/someone", "/v1/ice-servers", "/livez", "/nowhere", "/openapi.json"):
        headers = (await gateway.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in headers or "uvicorn" in headers["server"]
    assert "frame-ancestors 'none'" in (await gateway.http.get("/docs")).headers["content-security-policy"]
    for path, devices in (("/", "camera=(), microphone=()"), ("/room/demo", "camera=(self), microphone=(self)")):
        page = (await gateway.http.get(path)).headers
        policy = page["content-security-policy"].split("; ")
        assert {"default-src 'self'", "script-src 'self' 'wasm-unsafe-eval'", "worker-src 'self'"} <= set(policy)
        assert page["permissions-policy"].startswith(devices)
    picture = (await gateway.http.get("/v1/avatars/someone/picture")).headers
    assert (picture["cache-control"], picture["vary"]) == ("no-store", "Authorization"), "a face stays in no cache"
    assert picture["x-content-type-options"] == "nosniff"


async def test_a_page_names_its_files_by_their_version_and_the_sdk_is_there_too(start_gateway: Any) -> None:
    gateway = await start_gateway(web_root=mien_web.ROOT)
    for page in ("/", "/room/demo"):
        html = (await gateway.anyone.get(page)).text
        named = re.findall(r'"(/static/[^"]+)"', html)
        assert len(named) >= 3
        for path in named:
            answer = await gateway.anyone.get(path)
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
            assert path.startswith("/static/v-")
    for path, kind in (("index.js", "text/javascript"), ("encoder/kernel.wasm", "application/wasm")):
        answer = await gateway.anyone.get(f"/static/client/{path}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "no-cache"


async def test_cors_is_a_list_without_wildcards_or_cookies(start_gateway: Any) -> None:
    gateway = await start_gateway(cors_origins=["https://app.example"])
    for origin, named in (
        ("https://app.example", True),
        ("https://app.example.evil.example", False),
        ("http://app.example", False),
        ("null", False),
    ):
        for answer in (
            await gateway.http.get("/v1/sessions", headers={"Origin": origin}),
            await gateway.anyone.get("/v1/sessions", headers={"Origin": origin}),  # a refusal can be read too
        ):
            assert answer.headers.get("access-control-allow-origin") == (origin if named else None)
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" in answer.headers.get("vary", "") or not named
    plain = await start_gateway()
    answer = await plain.http.get("/v1/sessions", headers={"Origin": "https://app.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
