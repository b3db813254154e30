"""A deleted avatar is gone: from the store, from Redis, from every answer, and from the sessions that showed it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from mien_gateway.app import create_app
from mien_gateway.avatar_upkeep import UNFINISHED_S, AvatarUpkeep
from mien_gateway.bundled import BUNDLED_AVATAR_ID, bundled_ids
from mien_shared.avatars import AvatarNotFound, AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus import keys
from mien_shared.bus.channels import FramePublisher
from mien_shared.bus.messages import EncodedFrame, StartSession, StopSession, ViewerState
from mien_shared.bus.registry import Registry
from mien_shared.bus.viewers import Viewers
from mien_shared.clock import VirtualClock
from mien_shared.keypoints import Keypoints

pytestmark = pytest.mark.integration

AVATAR_ID = "a-face-to-erase"
FACE = b"\x89PNG of a face that must not be found anywhere"
DRAWN = Path(__file__).resolve().parents[3] / "services/gateway/mien_gateway/bundled/mien.png"
ENDED = "the session has ended: its avatar was deleted"


def record(avatar_id: str) -> AvatarRecord:
    rows = [tuple(row) for row in Keypoints.at_rest().rows().tolist()]
    return AvatarRecord(
        avatar_id=avatar_id, width=1280, height=720, face_box=FaceBox(x=448, y=120, size=384), keypoints=rows
    )


def store_of(gateway: Any) -> AvatarStore:
    return AvatarStore.open(gateway.settings.avatar_store)


async def session_with(gateway: Any, avatar_id: str) -> dict[str, Any]:
    answer = await gateway.http.post("/v1/sessions", json={"avatar_id": avatar_id})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def problem(gateway: Any, method: str, path: str, **options: Any) -> tuple[int, str, str]:
    answer = await gateway.http.request(method, path, **options)
    return answer.status_code, answer.json()["type"].removeprefix("urn:mien:problem:"), answer.json()["detail"]


async def everything_in(redis: Redis) -> bytes:
    """All names and values of a Redis, without the streams of control messages: they name avatars until they expire."""
    found = []
    async for name in redis.scan_iter():
        match await redis.type(name):
            case b"string":
                found += [name, await redis.get(name)]
            case b"set":
                found += [name, *await redis.smembers(name)]
            case b"zset":
                found += [name, *await redis.zrange(name, 0, -1)]
            case b"stream" if not name.endswith(b":control"):
                found += [name, *(value for _, fields in await redis.xrange(name) for value in fields.values())]
    return b"\n".join(found)


async def test_after_a_delete_nothing_of_the_face_is_anywhere(start_gateway: Any, start_generator: Any) -> None:
    gateway, elsewhere = await start_gateway(), await start_gateway()
    generator = await start_generator()
    folder = Path(gateway.settings.avatar_store.removeprefix("file:"))
    await store_of(gateway).put(record(AVATAR_ID), FACE)
    created, other = await session_with(gateway, AVATAR_ID), await gateway.create_session()
    session_id = created["session_id"]
    await generator.is_told(2)
    await show(generator.redis, session_id)
    uplink = f"ws{elsewhere.url.removeprefix('http')}/v1/sessions/{session_id}/uplink"
    headers = {"Authorization": f"Bearer {created['token']}"}
    async with connect(uplink, additional_headers=headers, proxy=None) as socket:
        assert (await gateway.http.delete(f"/v1/avatars/{AVATAR_ID}")).status_code == 204
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(10):
                await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4410, ENDED)
    assert StopSession(session_id=session_id) in await generator.is_told(3)

    assert not [path for path in folder.rglob("*") if AVATAR_ID in str(path)]
    assert not [path for path in folder.rglob("*") if path.is_file() and FACE in path.read_bytes()]
    kept = await everything_in(generator.redis)
    assert FACE not in kept
    assert AVATAR_ID.encode() not in kept
    for side in (gateway, elsewhere):
        not_found = (404, "avatar-not-found", "there is no avatar with this id")
        for path in (f"/v1/avatars/{AVATAR_ID}", f"/v1/avatars/{AVATAR_ID}/picture"):
            assert await problem(side, "GET", path) == not_found
        assert await problem(side, "DELETE", f"/v1/avatars/{AVATAR_ID}") == not_found
        assert await problem(side, "POST", "/v1/sessions", json={"avatar_id": AVATAR_ID}) == not_found
        assert AVATAR_ID not in (await side.http.get("/v1/avatars")).text
        listed = (await side.http.get("/v1/sessions")).json()["sessions"]
        assert [view["session_id"] for view in listed] == [other["session_id"]]
        assert await problem(side, "GET", f"/v1/sessions/{session_id}") == (404, "session-not-found", ENDED)
        answer = await side.anyone.get(f"/v1/avatars/{AVATAR_ID}/picture", headers=headers)
        assert answer.status_code == 403, "the token's session has ended"


async def show(redis: Redis, session_id: str) -> None:
    """What a generator and a signaling service write about a session, with the face in it."""
    publisher = FramePublisher(redis, lambda *_: None)
    publisher.push(session_id, EncodedFrame(run="r", index=0, pts_90k=0, is_idr=True, data=FACE))
    await publisher.flush()
    await redis.set(keys.stats(session_id), FACE)
    viewer = ViewerState(viewer_id="v", state="connected", joined_at_ms=0, sent_bps=0, target_bps=0)
    await Viewers(redis).exchange("service", {session_id: [viewer]})
    await Viewers(redis).end(session_id, "v")


async def test_a_delete_that_could_not_end_the_sessions_is_finished_by_the_next(
    start_gateway: Any, start_generator: Any, redis_server: Any
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    await store_of(gateway).put(record(AVATAR_ID), FACE)
    created = await session_with(gateway, AVATAR_ID)
    registry = Registry(generator.redis)
    session = await registry.session(created["session_id"])
    assert session is not None
    redis_server.stop()
    path = f"/v1/avatars/{AVATAR_ID}"
    assert (await problem(gateway, "DELETE", path))[:2] == (503, "redis-unavailable")
    with pytest.raises(AvatarNotFound):
        await store_of(gateway).picture(AVATAR_ID)
    redis_server.start()
    await gateway.becomes_ready()
    await registry.keep_alive(session)  # as a viewer's signaling service does
    assert (await gateway.http.delete(path)).status_code == 204
    assert await registry.session(created["session_id"]) is None
    assert (await problem(gateway, "DELETE", path))[:2] == (404, "avatar-not-found")


async def test_an_avatar_that_goes_while_a_session_is_placed_takes_the_session_with_it(
    start_gateway: Any, start_generator: Any
) -> None:
    gateway = await start_gateway()
    generator = await start_generator(capacity=1000)
    store = store_of(gateway)
    for _ in range(20):  # whichever of the two is first
        await store.put(record(AVATAR_ID), FACE)
        creating = asyncio.create_task(gateway.http.post("/v1/sessions", json={"avatar_id": AVATAR_ID}))
        deleted = await gateway.http.delete(f"/v1/avatars/{AVATAR_ID}")
        assert deleted.status_code == 204
        assert (await creating).status_code in {201, 404}
        assert await Registry(generator.redis).sessions() == []


async def test_avatars_are_listed_for_operators(start_gateway: Any) -> None:
    gateway = await start_gateway(avatar_unused_s=7200)
    await store_of(gateway).put(record(AVATAR_ID), FACE)
    os.remove(Path(gateway.settings.avatar_store.removeprefix("file:")) / "someone" / "picture.png")
    listed = {one["avatar_id"]: one for one in (await gateway.http.get("/v1/avatars")).json()["avatars"]}
    assert list(listed) == sorted([AVATAR_ID, *bundled_ids()]), "what is not whole is no avatar"
    one = listed[AVATAR_ID]
    assert abs(one["created_at_ms"] - time.time() * 1000) < 60_000
    assert (one["used_at_ms"], one["expires_at_ms"]) == (one["created_at_ms"], one["created_at_ms"] + 7_200_000)
    assert listed[BUNDLED_AVATAR_ID]["expires_at_ms"] is None
    assert (await gateway.anyone.get("/v1/avatars")).status_code == 401


async def upload(gateway: Any, data: bytes) -> Any:
    return await gateway.http.post("/v1/avatars", files={"image": ("picture", data)}, data={"consent": "drawn"})


async def test_no_more_avatars_than_the_settings_allow(start_gateway: Any) -> None:
    gateway = await start_gateway(max_avatars=2)  # the fixture's avatar is one of them, the bundled one is not
    answers = await asyncio.gather(*(upload(gateway, DRAWN.read_bytes()) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    full = next(answer for answer in answers if answer.status_code == 409)
    assert full.json()["type"] == "urn:mien:problem:avatar-limit"
    assert full.json()["detail"] == "there may be at most 2 avatars"
    assert await gateway.metric("mien_avatar_uploads_total", result="avatar-limit") == 2
    assert (await gateway.http.delete("/v1/avatars/someone")).status_code == 204
    assert (await upload(gateway, DRAWN.read_bytes())).status_code == 201


async def test_the_picture_of_a_face_stays_in_no_cache_but_the_bundled_one_may(start_gateway: Any) -> None:
    gateway = await start_gateway()
    await store_of(gateway).put(record(AVATAR_ID), FACE)
    for avatar_id, caching in ((AVATAR_ID, "no-store"), (BUNDLED_AVATAR_ID, "private, max-age=300")):
        answer = await gateway.http.get(f"/v1/avatars/{avatar_id}/picture")
        assert answer.headers["cache-control"] == caching


class Upkeep:
    """A gateway's upkeep of its avatars, on a clock that the test moves."""

    def __init__(self, gateway: Any, app: Any, redis: Redis, unused_s: float) -> None:
        self.clock = VirtualClock(unix_s=time.time())
        self.store = store_of(gateway)
        self._upkeep = AvatarUpkeep(self.store, app.state.avatars, Registry(redis), unused_s, self.clock)

    async def after(self, seconds: float) -> set[str]:
        """The avatars that are left so long after the last step."""
        await self.clock.advance(seconds)
        await self._upkeep.step()
        return {avatar.avatar_id for avatar in await self.store.stored()}


async def test_unused_avatars_expire_and_those_in_use_do_not(
    start_gateway: Any, start_generator: Any, make_settings: Any, run_app: Any
) -> None:
    gateway = await start_gateway()
    await start_generator()
    app = create_app(make_settings(avatar_unused_s=3600))
    await run_app(app)
    generator_redis = (await start_generator("g2")).redis
    upkeep = Upkeep(gateway, app, generator_redis, 3600)
    for avatar_id in ("used", "unused"):
        await upkeep.store.put(record(avatar_id), FACE)
    created = await session_with(gateway, "used")
    assert await upkeep.after(3590) == {"used", "unused", "someone", *bundled_ids()}
    assert await upkeep.after(20) == {"used", *bundled_ids()}, "bundled avatars never expire"
    headers = {"Authorization": f"Bearer {created['token']}"}
    assert (await gateway.http.get(f"/v1/sessions/{created['session_id']}", headers=headers)).status_code == 200


async def test_a_new_session_counts_as_a_use(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(avatar_unused_s=3600)
    await start_generator()
    (before,) = [one for one in await store_of(gateway).stored() if one.avatar_id == "someone"]
    await gateway.create_session()
    (after,) = [one for one in await store_of(gateway).stored() if one.avatar_id == "someone"]
    assert after.created_unix_s == before.created_unix_s < after.used_unix_s


async def test_what_was_never_whole_is_cleared_away(start_gateway: Any, make_settings: Any, run_app: Any) -> None:
    gateway = await start_gateway()
    app = create_app(make_settings())
    await run_app(app)
    folder = Path(gateway.settings.avatar_store.removeprefix("file:"))
    (folder / "half").mkdir()
    (folder / "half" / "picture.png").write_bytes(FACE)
    (folder / "part").mkdir()
    (folder / "part" / "picture.png#1").write_bytes(FACE)
    async with Redis.from_url(str(gateway.settings.redis_url)) as redis:
        upkeep = Upkeep(gateway, app, redis, 0)
        assert await upkeep.after(0) == {"half", "part", "someone", *bundled_ids()}
        assert await upkeep.after(UNFINISHED_S + 1) == {"someone", *bundled_ids()}
    assert sorted(path.name for path in folder.iterdir()) == sorted(["someone", *bundled_ids()])


async def test_who_did_what_is_in_the_audit_log(
    start_gateway: Any, start_generator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    generator = await start_generator()
    avatar_id = (await upload(gateway, DRAWN.read_bytes())).json()["avatar_id"]
    sessions = [await session_with(gateway, avatar_id) for _ in range(3)]
    await gateway.http.delete(f"/v1/sessions/{sessions[0]['session_id']}")
    token = {"Authorization": f"Bearer {sessions[1]['token']}"}
    await gateway.http.delete(f"/v1/sessions/{sessions[1]['session_id']}", headers=token)
    await gateway.http.delete(f"/v1/avatars/{avatar_id}")
    lines = [one for one in caplog.records if one.name == "mien.audit"]
    assert [one.message for one in lines] == [
        "avatar created",
        *["session created"] * 3,
        *["session ended"] * 3,
        "avatar deleted",
    ]
    assert [vars(one).get("reason") for one in lines[4:7]] == ["operator", "speaker", "avatar-deleted"]
    assert [vars(one)["role"] for one in lines] == ["operator"] * 5 + ["bearer"] + ["operator"] * 2
    assert len({vars(one)["principal"] for one in lines}) == 2
    written = json.dumps([vars(one) for one in lines], default=str)
    for created in sessions:
        for secret in (created["session_id"], created["token"], created["watch_token"]):
            assert secret not in written
    assert gateway.http.headers["Authorization"].removeprefix("Bearer ") not in written
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert isinstance((await generator.is_told(1))[0], StartSession)
