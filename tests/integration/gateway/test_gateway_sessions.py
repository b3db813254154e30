"""Sessions over HTTP: created, seen, ended; placed on generators; refused when they must be."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from integration.callers import now_ms

from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord, SessionStats, StartSession, StopSession
from mien_shared.bus.registry import Registry
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import SPEAKER_GRANTS, VIEWER_GRANTS, TokenIssuer
from mien_shared.http.turn import turn_credentials

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
AVATAR = {"avatar_id": "someone"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def assert_problem(answer: Any, status: int, code: str, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"], body["detail"]) == (f"urn:mien:problem:{code}", status, detail)


async def test_a_session_is_created_seen_and_ended(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(
        public_url="https://mien.example",
        ice_servers=[{"urls": ["stun:stun.example"]}, {"urls": [], "credential": "x"}],
    )
    generator = await start_generator()
    answer = await gateway.http.post("/v1/sessions", json=AVATAR)
    assert answer.status_code == 201
    created = answer.json()
    session_id = created["session_id"]
    assert answer.headers["location"] == f"/v1/sessions/{session_id}"
    assert answer.headers["cache-control"] == "no-store"
    assert set(created) == {"session_id", "token", "watch_token", "uplink_url", "whep_url", "ice_servers"}
    assert created["uplink_url"] == f"wss://mien.example/v1/sessions/{session_id}/uplink"
    assert created["whep_url"] == f"http://127.0.0.1:8081/v1/whep/{session_id}"
    assert [server["urls"] for server in created["ice_servers"]] == [["stun:stun.example"], []]
    tokens = TokenIssuer(SECRET)
    for grant in (Grant.PUBLISH, Grant.WATCH, Grant.END):
        tokens.read(created["token"]).demand(session_id, [grant])
    tokens.read(created["watch_token"]).demand(session_id, [Grant.WATCH])

    (told,) = await generator.is_told(1)
    assert isinstance(told, StartSession)
    assert (told.session.session_id, told.session.avatar_id) == (session_id, "someone")

    stats = SessionStats(
        fps=30,
        bitrate_bps=1,
        uplink_bps=2,
        motion_to_packet_ms_p50=None,
        motion_to_packet_ms_p99=None,
        backend="none",
        tier="warp",
        idle=False,
    )
    await generator.redis.set(keys.stats(session_id), stats.to_bytes(), ex=keys.STATS_S)
    for token in (created["token"], created["watch_token"]):
        view = (await gateway.http.get(f"/v1/sessions/{session_id}", headers=bearer(token))).json()
        assert (view["state"], view["generator"], view["avatar_id"]) == ("live", "g1", "someone")
        assert view["created_at_ms"] == told.session.created_at_ms
        assert view["stats"]["fps"] == 30

    answer = await gateway.http.delete(f"/v1/sessions/{session_id}", headers=bearer(created["watch_token"]))
    assert_problem(answer, 403, "token-not-granted", "the token does not grant end")
    answer = await gateway.http.delete(f"/v1/sessions/{session_id}", headers=bearer(created["token"]))
    assert (answer.status_code, answer.content) == (204, b"")
    _, stop = await generator.is_told(2)
    assert stop == StopSession(session_id=session_id)
    for _ in range(2):
        answer = await gateway.http.delete(f"/v1/sessions/{session_id}", headers=bearer(created["token"]))
        assert_problem(answer, 404, "session-not-found", "the session has ended: its speaker ended it")
    assert await gateway.metric("mien_session_requests_total", result="created") == 1


async def test_tokens_are_demanded(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    path = f"/v1/sessions/{created['session_id']}"
    answer = await gateway.anyone.get(path)
    assert_problem(answer, 401, "token-missing", "this call needs the session's token as a bearer")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await gateway.http.get(path, headers=bearer("nonsense"))
    assert_problem(answer, 401, "token-invalid", "the token is not valid here")
    expired = TokenIssuer(SECRET).issue(created["session_id"], SPEAKER_GRANTS, now_s=0)
    answer = await gateway.http.get(path, headers=bearer(expired))
    assert_problem(answer, 401, "token-invalid", "the token has expired")
    other = TokenIssuer(SECRET).issue("another", SPEAKER_GRANTS)
    answer = await gateway.http.get(path, headers=bearer(other))
    assert_problem(answer, 403, "token-not-granted", "the token is for another session")
    answer = await gateway.http.get("/v1/sessions/another", headers=bearer(other))
    assert_problem(answer, 404, "session-not-found", "there is no session with this id")


async def test_sessions_are_listed_for_operators_and_where_the_deployment_is_open(
    start_gateway: Any, start_generator: Any
) -> None:
    closed = await start_gateway(ice_servers=[{"urls": ["stun:a"]}, {"urls": ["turn:a"], "credential": "x"}])
    opened = await start_gateway(demo_open=True, ice_servers=[{"urls": ["turn:a"], "credential": "x"}])
    await start_generator()
    first, second = await closed.create_session(), await closed.create_session()
    answer = await closed.anyone.get("/v1/sessions")
    assert_problem(answer, 401, "api-key-missing", "this call needs an operator's API key as a bearer")
    for client in (closed.http, opened.anyone):
        listed = (await client.get("/v1/sessions")).json()["sessions"]
        assert {view["session_id"] for view in listed} == {first["session_id"], second["session_id"]}
    assert (await opened.anyone.get(f"/v1/sessions/{first['session_id']}")).json()["state"] == "live"
    answer = await opened.anyone.delete(f"/v1/sessions/{first['session_id']}")
    assert_problem(answer, 401, "token-missing", "this call needs the session's token as a bearer")
    servers = (await closed.anyone.get("/v1/ice-servers")).json()["ice_servers"]
    assert [server["urls"] for server in servers] == [["stun:a"]]
    servers = (await opened.anyone.get("/v1/ice-servers")).json()["ice_servers"]
    assert [server["credential"] for server in servers] == ["x"]


async def test_turn_credentials_are_for_those_who_hold_a_session_s_token(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway(turn_urls=["turn:t.example"], turn_secret=SECRET, turn_lifetime_s=600)
    await start_generator()
    before_s = int(time.time())
    created = await gateway.create_session()
    (turn,) = created["ice_servers"]
    assert turn["urls"] == ["turn:t.example"]
    expiry, user = turn["username"].split(":")
    assert before_s + 600 <= int(expiry) <= time.time() + 600
    assert turn["credential"] == turn_credentials(SECRET, user, int(expiry)).credential
    assert (await gateway.anyone.get("/v1/ice-servers")).json()["ice_servers"] == []
    viewers = [
        (await gateway.http.get("/v1/ice-servers", headers=bearer(created["watch_token"]))).json() for _ in range(2)
    ]
    users = {user, *(viewer["ice_servers"][0]["username"].partition(":")[2] for viewer in viewers)}
    assert len(users) == 3, "every connection has its own user, and so its own quota"
    assert {name.partition("-")[0] for name in users} == {user.partition("-")[0]}
    answer = await gateway.http.get("/v1/ice-servers", headers=bearer("no.token.this"))
    assert_problem(answer, 401, "token-invalid", "the token is not valid here")
    forged = TokenIssuer("another secret of thirty-two bytes, or more").issue(created["session_id"], VIEWER_GRANTS)
    answer = await gateway.http.get("/v1/ice-servers", headers=bearer(forged))
    assert_problem(answer, 401, "token-invalid", "the token is not valid here")


async def test_an_ended_session_s_token_gets_no_turn_credentials(
    start_gateway: Any, start_generator: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway(turn_urls=["turn:t.example"], turn_secret=SECRET)
    await start_generator()
    created = await gateway.create_session()
    await gateway.http.delete(f"/v1/sessions/{created['session_id']}")
    for token in (created["token"], created["watch_token"]):
        answer = await gateway.http.get("/v1/ice-servers", headers=bearer(token))
        assert_problem(answer, 404, "session-not-found", "the session has ended: an operator ended it")
    redis_server.stop()
    await gateway.becomes_ready(503)
    answer = await gateway.http.get("/v1/ice-servers", headers=bearer(created["token"]))
    assert_problem(answer, 503, "redis-unavailable", "the session registry does not answer")
    plain = await start_gateway(ready=False, ice_servers=[{"urls": ["stun:a"]}])
    servers = (await plain.http.get("/v1/ice-servers", headers=bearer(created["token"]))).json()["ice_servers"]
    assert [server["urls"] for server in servers] == [["stun:a"]], "without TURN nothing is asked"


async def test_a_session_without_a_generator_waits(start_gateway: Any, redis_server: EmbeddedRedis) -> None:
    gateway = await start_gateway(demo_open=True)
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(
            SessionRecord(session_id="orphan", avatar_id="someone", created_at_ms=now_ms())
        )
    view = (await gateway.http.get("/v1/sessions/orphan")).json()
    assert (view["state"], view["generator"], view["stats"]) == ("waiting", None, None)


async def test_what_cannot_be_placed_is_refused(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    answer = await gateway.http.post("/v1/sessions", json={"avatar_id": "nobody"})
    assert_problem(answer, 404, "avatar-not-found", "there is no avatar with this id")
    answer = await gateway.http.post("/v1/sessions", json={"avatar_id": "../../etc"})
    assert_problem(answer, 404, "avatar-not-found", "there is no avatar with this id")
    assert_problem(
        await gateway.http.post("/v1/sessions", json={}), 422, "invalid-request", "body.avatar_id: Field required"
    )
    answer = await gateway.http.post("/v1/sessions", json=AVATAR)
    assert_problem(answer, 503, "no-generator", "no generator accepts sessions at the moment")
    assert answer.headers["retry-after"] == "2"
    await start_generator("leaving", draining=True)
    answer = await gateway.http.post("/v1/sessions", json=AVATAR)
    assert_problem(answer, 503, "no-generator", "no generator accepts sessions at the moment")
    await start_generator("small", capacity=1)
    await gateway.create_session()
    answer = await gateway.http.post("/v1/sessions", json=AVATAR)
    assert_problem(answer, 503, "full", "every generator is full at the moment")
    assert answer.headers["retry-after"] == "5"
    assert await gateway.metric("mien_session_requests_total", result="full") == 1


async def test_an_ended_session_gives_its_place_back(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway()
    generator = await start_generator(capacity=1)
    created = await gateway.create_session()
    await generator.is_told(1)
    await gateway.http.delete(f"/v1/sessions/{created['session_id']}", headers=bearer(created["token"]))
    await gateway.create_session()


async def test_sessions_go_to_the_least_loaded_generator(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(demo_open=True)
    for generator_id, capacity in (("a", 1), ("b", 3)):
        await start_generator(generator_id, capacity)
    for _ in range(4):
        await gateway.create_session()
    listed = (await gateway.http.get("/v1/sessions")).json()["sessions"]
    assert sorted(view["generator"] for view in listed) == ["a", "b", "b", "b"]


async def test_two_gateways_racing_for_the_last_place_make_one_session(
    start_gateway: Any, start_generator: Any
) -> None:
    gateways = [await start_gateway(), await start_gateway()]
    await start_generator(capacity=3)
    answers = await asyncio.gather(*(gateways[i % 2].http.post("/v1/sessions", json=AVATAR) for i in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [503] * 7


async def test_redis_away_means_503_and_recovery_by_itself(
    start_gateway: Any, start_generator: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway()
    await start_generator()
    created = await gateway.create_session()
    redis_server.stop()
    unready = await gateway.becomes_ready(503)
    assert unready == {"status": "unready", "reasons": {"redis": "Redis does not answer"}}
    assert (await gateway.http.get("/livez")).status_code == 200
    answer = await gateway.http.post("/v1/sessions", json=AVATAR)
    assert_problem(answer, 503, "redis-unavailable", "the session registry does not answer")
    assert answer.headers["retry-after"] == "2"
    answer = await gateway.http.get(f"/v1/sessions/{created['session_id']}", headers=bearer(created["token"]))
    assert_problem(answer, 503, "redis-unavailable", "the session registry does not answer")
    redis_server.start()
    await gateway.becomes_ready()
    async with asyncio.timeout(20):
        while (await gateway.http.post("/v1/sessions", json=AVATAR)).status_code != 201:
            await asyncio.sleep(0.1)  # the generator's heart has to beat again first


async def test_starting_without_redis_works_once_it_is_there(start_gateway: Any, redis_server: EmbeddedRedis) -> None:
    redis_server.stop()
    gateway = await start_gateway(ready=False)
    body = await gateway.becomes_ready(503)
    assert "redis" in body["reasons"]
    redis_server.start()
    assert await gateway.becomes_ready() == {"status": "ready"}


async def test_only_named_origins_may_call(start_gateway: Any) -> None:
    gateway = await start_gateway(cors_origins=["https://app.example"])
    preflight = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    answer = await gateway.http.options("/v1/sessions/x", headers=preflight | {"Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    answer = await gateway.http.options("/v1/sessions/x", headers=preflight | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_the_page_is_served_with_its_headers_and_nothing_beside_it(start_gateway: Any, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text("<title>Mien</title>")
    (tmp_path / "page/app.js").write_text("1")
    (tmp_path / "page/secret.py").write_text("1")
    gateway = await start_gateway(web_root=tmp_path / "page")
    for path, kind in (("/", "text/html"), ("/static/app.js", "text/javascript")):
        answer = await gateway.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    for path in ("/static/secret.py", "/static/nothing.js", "/static/../secret.py", "/static/"):
        assert (await gateway.http.get(path)).status_code == 404


async def test_without_a_page_there_is_none(start_gateway: Any) -> None:
    gateway = await start_gateway()
    assert_problem(await gateway.http.get("/"), 404, "not-found", "Not Found")


async def test_the_api_describes_itself(start_gateway: Any) -> None:
    gateway = await start_gateway()
    described = (await gateway.http.get("/openapi.json")).json()
    for path, method, status in (
        ("/v1/avatars", "post", "413"),
        ("/v1/sessions", "post", "503"),
        ("/v1/sessions/{session_id}", "delete", "403"),
    ):
        assert "application/problem+json" in described["paths"][path][method]["responses"][status]["content"]
    assert "multipart/form-data" in described["paths"]["/v1/avatars"]["post"]["requestBody"]["content"]
