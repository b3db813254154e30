"""The generator's application on a real Redis: sessions by order, by claim and by lease."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from one_process import create_app
from outages import hanging, stopped
from PIL import Image
from redis.asyncio import Redis

from mien_generator.engine.engine import Engine
from mien_generator.face import build
from mien_generator.face.build import Ladders, make_ladders, portrait_ladder
from mien_generator.face.contract import FaceRequest, RgbArray
from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig, KeypointDetectorConfig
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpFace, WarpGenerator
from mien_generator.h264.encoder import choose_h264_encoder
from mien_generator.measure import Measurement, speed_file
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarKind, AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus import connection, keys
from mien_shared.bus.channels import MotionForwarder, VideoSubscription, send_control
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import (
    EncodedFrame,
    EndReason,
    GeneratorStatus,
    InboundMotion,
    SessionRecord,
    StartSession,
    StopSession,
)
from mien_shared.bus.registry import RESERVATION_MS, Registry
from mien_shared.keypoints import Keypoints
from mien_shared.media.frame_trace import read_trace
from mien_shared.wire.motion import MotionPacket

pytestmark = pytest.mark.integration

RunApp = Callable[[FastAPI], Awaitable[str]]

ROWS = [
    (x, y, 1.0, 0.0, 0.0, 1.0)
    for x, y in [
        (-0.28, -0.40), (0.28, -0.40), (-0.26, -0.25), (0.26, -0.25), (0.0, 0.02),
        (0.0, 0.20), (0.0, 0.30), (0.0, 0.52), (-0.48, 0.10), (0.48, 0.10),
    ]
]  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, redis_server: EmbeddedRedis) -> GeneratorSettings:
    return GeneratorSettings(
        redis_url=redis_server.url,
        token_secret="a secret of thirty-two bytes or more",
        avatar_store=f"file:{tmp_path}/avatars",
        face_backend="warp",
        capacity=2,
        drain_s=0.5,
        cache_folder=tmp_path / "cache",
    )


@pytest.fixture
async def avatar(settings: GeneratorSettings) -> str:
    """A stored avatar that needs no face: warp bends whatever it is given."""
    pixels = np.random.default_rng(1).integers(0, 255, (90, 160, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((1280, 720)).save(out, "PNG")
    box = FaceBox(x=448, y=100, size=384)
    record = AvatarRecord(avatar_id="a1", width=1280, height=720, face_box=box, keypoints=ROWS)
    await AvatarStore.open(settings.avatar_store).put(record, out.getvalue())
    return record.avatar_id


async def generator_id(registry: Registry) -> str:
    async with asyncio.timeout(10):
        while not (generators := await registry.generators()):
            await asyncio.sleep(0.02)
    return generators[0].generator_id


async def generator_status(registry: Registry) -> GeneratorStatus:
    await generator_id(registry)
    return (await registry.generators())[0]


async def place(registry: Registry, session: SessionRecord, on: str, capacity: int = 2) -> None:
    """What a gateway does for a new session."""
    assert await registry.reserve(on, session.session_id, capacity)
    assert await registry.hold(on, session.session_id, RESERVATION_MS)
    assert await registry.keep_alive(session)
    await send_control(registry.redis, on, StartSession(session=session))


async def frames_of(redis: Redis, session_id: str, count: int) -> list[EncodedFrame]:
    subscription = VideoSubscription(redis, session_id)
    got: list[EncodedFrame] = []
    async with asyncio.timeout(15):
        while len(got) < count:
            got += await subscription.read()
    return got


async def until_ready(http: httpx.AsyncClient) -> None:
    """A service is unready until its first probe of Redis has an answer."""
    async with asyncio.timeout(10):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


def record(session_id: str, avatar_id: str) -> SessionRecord:
    return SessionRecord(session_id=session_id, avatar_id=avatar_id, created_at_ms=1)


async def test_a_session_is_started_moved_and_stopped(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    url = await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("s1", avatar), gid)
    frames = await frames_of(redis, "s1", 5)
    assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))

    forwarder = MotionForwarder(redis, lambda reason, count: None)
    forwarder.push(gid, InboundMotion("s1", MotionPacket(9, 123, Keypoints.at_rest()).pack(), 1))
    await forwarder.flush()
    traces = [read_trace(frame.data) for frame in await frames_of(redis, "s1", 3)]
    assert any(trace is not None and trace.sequence == 9 for trace in traces)

    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        await until_ready(http)
        async with asyncio.timeout(5):
            while await registry.stats("s1") is None:
                await asyncio.sleep(0.05)
        await send_control(redis, gid, StopSession(session_id="s1"))
        async with asyncio.timeout(5):
            while "mien_generator_sessions 0.0" not in (await http.get("/metrics")).text:
                await asyncio.sleep(0.05)


async def test_a_session_without_a_holder_is_claimed(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    registry = Registry(redis)
    await registry.keep_alive(record("orphan", avatar))
    await run_app(create_app(settings, make_ladders))
    frames = await frames_of(redis, "orphan", 2)
    assert frames
    assert await registry.owner("orphan") == await generator_id(registry)


async def test_no_more_sessions_are_claimed_than_fit(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    registry = Registry(redis)
    for name in ("s1", "s2", "s3"):
        await registry.keep_alive(record(name, avatar))
    await run_app(create_app(settings, make_ladders))
    gid = await generator_id(registry)
    async with asyncio.timeout(10):
        while await registry.taken_slots(gid) < 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    assert len(await registry.owners(["s1", "s2", "s3"])) == 2


async def test_a_lease_that_another_took_is_given_up(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    url = await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("s1", avatar), gid)
    await frames_of(redis, "s1", 1)
    await registry.release(gid, "s1")
    assert await registry.hold("another", "s1", 20_000)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, asyncio.timeout(5):
        while 'reason="taken_over"} 1.0' not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.05)
    assert await registry.owner("s1") == "another"


async def test_an_avatar_that_is_not_there_costs_nobody_else_a_frame(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("lost", "nowhere"), gid)
    await place(registry, record("good", avatar), gid)
    assert len(await frames_of(redis, "good", 3)) >= 3
    assert await registry.owner("lost") is None


async def test_its_farewell_leaves_nothing_in_redis(settings: GeneratorSettings, redis: Redis, avatar: str) -> None:
    app = create_app(settings, make_ladders)
    registry = Registry(redis)
    async with app.router.lifespan_context(app):
        gid = await generator_id(registry)
        await place(registry, record("s1", avatar), gid)
        await frames_of(redis, "s1", 1)
    left = {key.decode() for key in await redis.keys("*")}
    assert {key for key in left if gid in key or key == keys.GENERATORS} == set()
    assert await registry.owner("s1") is None


async def test_an_engine_that_cannot_run_here_stays_unready_and_says_why(
    run_app: RunApp, settings: GeneratorSettings, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"these are no weights")
    for change, reason in (
        ({"face_backend": "torch", "weights": tmp_path / "none.safetensors"}, "there is no file none.safetensors"),
        ({"face_backend": "torch", "weights": weights}, "weights.safetensors"),
    ):
        url = await run_app(create_app(settings.model_copy(update=change), make_ladders))
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert reason in answer.json()["reasons"]["generator"]
            assert (await http.get("/livez")).status_code == 200


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    """The whole network at a few channels, untrained."""
    pytest.importorskip("torch", reason="the fomm engine needs torch")
    from mien_generator.face.fomm.checkpoint import random_weights, write_weights

    hourglass = HourglassConfig(block_expansion=8, max_features=24, num_blocks=3)
    config = FommConfig(
        KeypointDetectorConfig(block_expansion=4, max_features=16, num_blocks=2),
        GeneratorConfig(
            block_expansion=8, max_features=16, num_down_blocks=2, num_bottleneck_blocks=2, dense_motion=hourglass
        ),
    )
    path = tmp_path / "small.safetensors"
    write_weights(random_weights(config), path)
    return path


async def test_a_device_that_is_not_there_leaves_the_service_unready(
    run_app: RunApp, settings: GeneratorSettings, small_weights: Path
) -> None:
    changed = settings.model_copy(update={"face_backend": "torch", "weights": small_weights, "device": "cuda:99"})
    url = await run_app(create_app(changed, make_ladders))
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert "there is no device 'cuda:99'" in (await http.get("/readyz")).json()["reasons"]["generator"]


async def test_a_session_on_the_network_itself(
    run_app: RunApp, settings: GeneratorSettings, small_weights: Path, redis: Redis, avatar: str
) -> None:
    changed = settings.model_copy(
        update={"face_backend": "torch", "weights": small_weights, "face_size": 256, "floor_fps": 0}
    )
    await run_app(create_app(changed, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("s1", avatar), gid)
    assert len(await frames_of(redis, "s1", 5)) >= 5
    async with asyncio.timeout(10):
        while (stats := await registry.stats("s1")) is None:
            await asyncio.sleep(0.05)
    assert (stats.backend, stats.tier) == ("torch", "torch-256")


async def test_a_generator_that_leaves_hands_its_sessions_over(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    registry = Registry(redis)
    leaving = create_app(settings.model_copy(update={"drain_s": 10.0}), make_ladders)
    async with leaving.router.lifespan_context(leaving):
        first = await generator_id(registry)
        await place(registry, record("s1", avatar), first)
        await frames_of(redis, "s1", 1)
        await run_app(create_app(settings, make_ladders))
        async with asyncio.timeout(10):
            while len(await registry.generators()) < 2:
                await asyncio.sleep(0.05)
        subscription, seen = VideoSubscription(redis, "s1"), list[EncodedFrame]()

        async def watch() -> None:
            while True:
                seen.extend(await subscription.read())

        watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            while len({frame.run for frame in seen}) < 2 or seen[-1].run == seen[0].run:
                await asyncio.sleep(0.02)
    finally:
        watching.cancel()
    assert await registry.owner("s1") not in {None, first}
    new_run = [frame for frame in seen if frame.run != seen[0].run]
    old_run = [frame for frame in seen if frame.run == seen[0].run]
    assert new_run[0].is_idr
    assert old_run[-1].pts_90k > new_run[0].pts_90k - 9_000, "the old goes on until the new is there"


async def test_a_generator_that_is_alone_gives_its_sessions_up_at_the_deadline(
    settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    registry = Registry(redis)
    app = create_app(settings, make_ladders)
    async with app.router.lifespan_context(app):
        gid = await generator_id(registry)
        await place(registry, record("s1", avatar), gid)
        await frames_of(redis, "s1", 1)
    assert await registry.owner("s1") is None
    assert await registry.session("s1") is not None, "it waits for another generator"


async def test_capacity_is_what_the_machine_was_measured_to_hold(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, tmp_path: Path
) -> None:
    """Without MIEN_CAPACITY: one slow core, as its cache remembers it, has room for one session and not for two."""
    changed = settings.model_copy(update={"capacity": None, "cores": 1.0})
    ladder, _ = portrait_ladder(changed, 1)
    folder = tmp_path / "cache"
    folder.mkdir()
    slow = Measurement(tiers=[], warp_s=0.010, finish_s=0.008, noisy=False)  # 0.54 of a core each
    name = speed_file(ladder, choose_h264_encoder(), changed.max_batch, changed.cores or 0.0)
    (folder / name).write_text(slow.model_dump_json())
    url = await run_app(create_app(changed, make_ladders))
    registry = Registry(redis)
    (status,) = [await generator_status(registry)]
    assert status.capacity == 1
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert "mien_generator_capacity_sessions 1.0" in (await http.get("/metrics")).text
    assert await registry.reserve(status.generator_id, "s1", status.capacity)
    assert not await registry.reserve(status.generator_id, "s2", status.capacity), "the gateway answers 503"


async def test_auto_without_weights_warps_and_says_why(
    run_app: RunApp, settings: GeneratorSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "SHIPPED_WEIGHTS", tmp_path / "none.safetensors")
    url = await run_app(create_app(settings.model_copy(update={"face_backend": "auto"}), make_ladders))
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        await until_ready(http)
        page = (await http.get("/metrics")).text
    assert 'mien_backend_fallback_info{reason="weights"} 1.0' in page
    assert 'mien_generator_info{backend="warp",h264_encoder="libx264"} 1.0' in page


async def test_weights_that_were_tampered_with_are_no_reason_to_do_without(
    run_app: RunApp, settings: GeneratorSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "fomm-half.safetensors"
    broken.write_bytes(b"these are no weights")
    monkeypatch.setattr(build, "SHIPPED_WEIGHTS", broken)
    url = await run_app(create_app(settings.model_copy(update={"face_backend": "auto"}), make_ladders))
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert "fomm-half.safetensors" in answer.json()["reasons"]["generator"]


async def test_a_generator_that_cannot_hold_what_it_has_offers_no_place(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "is_overloaded", property(lambda engine: bool(engine.records())))
    await run_app(create_app(settings.model_copy(update={"capacity": None}), make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("s1", avatar), gid)
    async with asyncio.timeout(20):
        while (await generator_status(registry)).capacity != 1:
            await asyncio.sleep(0.05)


async def started(url: str, result: str) -> float:
    return await metric(url, "mien_generator_sessions_started_total", f'result="{result}"')


async def metric(url: str, name: str, labels: str = "") -> float:
    """The value of one series, 0 if there is none."""
    series = f"{name}{{{labels}}} " if labels else f"{name} "
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


async def until_sessions(url: str, count: int) -> None:
    async with asyncio.timeout(10):
        while await metric(url, "mien_generator_sessions") != count:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_redis_that_hangs_revives_no_ended_session(
    run_app: RunApp,
    settings: GeneratorSettings,
    redis: Redis,
    redis_server: EmbeddedRedis,
    avatar: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_SOCKET_TIMEOUT_S", 1.2)  # longer than a blocking read
    url = await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    for number in range(3):
        await place(registry, record(f"s{number}", avatar), gid)
        await frames_of(redis, f"s{number}", 1)
        await registry.end_session(f"s{number}")
        await registry.free_slot(gid, f"s{number}")
        await send_control(redis, gid, StopSession(session_id=f"s{number}"))
        await until_sessions(url, 0)
        await redis.delete(keys.ended(f"s{number}"))  # what its time to live does
    failures = await metric(url, "mien_redis_failures_total")
    async with hanging(redis_server), asyncio.timeout(20):
        # Its three loops have failed: the heartbeat, the probe, and the one that reads the inbox.
        while await metric(url, "mien_redis_failures_total") < failures + 4:
            await asyncio.sleep(0.05)
    await place(registry, record("new", avatar), gid)
    await frames_of(redis, "new", 5)
    assert await started(url, "placed") == 4, "three before, and the new one"
    assert await metric(url, "mien_generator_sessions") == 1


@pytest.mark.slow
@pytest.mark.parametrize("outage", [hanging, stopped])
async def test_after_an_outage_the_holder_of_a_session_comes_before_claims(
    run_app: RunApp,
    settings: GeneratorSettings,
    redis: Redis,
    redis_server: EmbeddedRedis,
    avatar: str,
    monkeypatch: pytest.MonkeyPatch,
    outage: Callable[[EmbeddedRedis], AbstractAsyncContextManager[None]],
) -> None:
    """Its lease has expired meanwhile. It renews the lease a second after Redis is back."""
    monkeypatch.setattr(connection, "_SOCKET_TIMEOUT_S", 1.2)  # longer than a blocking read
    url = await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    await generator_id(registry)
    assert await registry.hold("another", "s1", 20_000)
    assert await registry.keep_alive(record("s1", avatar))
    failures = await metric(url, "mien_redis_failures_total")
    async with outage(redis_server), asyncio.timeout(20):
        while await metric(url, "mien_redis_failures_total") < failures + 6:
            await asyncio.sleep(0.05)
        if outage is hanging:
            await asyncio.sleep(1.0)
    await redis.delete(keys.lease("s1"))
    assert await registry.keep_alive(record("s1", avatar))
    await asyncio.sleep(1.0)
    assert await registry.hold("another", "s1"), "nobody has claimed it"
    async with asyncio.timeout(10):  # it is silent now
        while await registry.owner("s1") != await generator_id(registry):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("flaw", ["no record", "ended", "held by another", "no free place"])
async def test_an_order_to_start_is_checked(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str, flaw: str
) -> None:
    url = await run_app(create_app(settings.model_copy(update={"capacity": 1}), make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    session = record("s1", avatar)
    if flaw != "no record":
        await registry.keep_alive(session)
    if flaw == "ended":
        await registry.end_session("s1")
    await registry.hold("another" if flaw == "held by another" else gid, "s1", 20_000)
    if flaw == "no free place":
        await place(registry, record("first", avatar), gid)
        await frames_of(redis, "first", 1)
    await send_control(redis, gid, StartSession(session=session))
    async with asyncio.timeout(10):
        while await started(url, "refused") != 1:
            await asyncio.sleep(0.02)
    assert await metric(url, "mien_generator_sessions") == (1 if flaw == "no free place" else 0)
    assert await registry.owner("s1") == ("another" if flaw == "held by another" else None)


async def test_a_stop_cancels_a_start_in_progress(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str
) -> None:
    url = await run_app(create_app(settings, make_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    session = record("s1", avatar)
    await registry.keep_alive(session)
    async with redis.pipeline(transaction=True) as pipe:  # both are read at once, so the start has only begun
        for order in (StartSession(session=session), StopSession(session_id="s1")):
            pipe.xadd(keys.control(gid), {b"m": order.to_bytes()})
        await registry.hold(gid, "s1", RESERVATION_MS)
        await pipe.execute()
    await place(registry, record("s2", avatar), gid)
    await frames_of(redis, "s2", 3)
    assert await started(url, "placed") == 1
    assert await redis.exists(keys.video("s1")) == 0


class Poisoned(WarpGenerator):
    """A device that cannot make the face of one avatar, a black one."""

    name = "network"

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        faces = super().animate(requests)
        if any(face.max() < 8 for face in faces):
            raise RuntimeError("a face cannot be made")
        return faces


def poisoned_ladders(settings: GeneratorSettings, threads: int) -> tuple[Ladders, None]:
    rungs = Rung("network-384", Poisoned(), on_device=True), Rung("warp", WarpGenerator(), on_device=False)
    return {AvatarKind.PORTRAIT: Ladder(rungs)}, None


@pytest.fixture
async def black_avatar(settings: GeneratorSettings) -> str:
    black = io.BytesIO()
    Image.new("RGB", (1280, 720)).save(black, "PNG")
    box = FaceBox(x=448, y=100, size=384)
    stored = AvatarRecord(avatar_id="black", width=1280, height=720, face_box=box, keypoints=ROWS)
    await AvatarStore.open(settings.avatar_store).put(stored, black.getvalue())
    return stored.avatar_id


class Lost(Poisoned):
    """A device that is lost for good with the face of that avatar."""

    is_lost = False

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        try:
            if self.is_lost:
                raise RuntimeError("the device is lost")
            return super().animate(requests)
        except RuntimeError:
            self.is_lost = True
            raise


def losing_ladders(settings: GeneratorSettings, threads: int) -> tuple[Ladders, None]:
    rungs = Rung("network-384", Lost(), on_device=True), Rung("warp", WarpGenerator(), on_device=False)
    return {AvatarKind.PORTRAIT: Ladder(rungs)}, None


async def test_a_device_that_is_lost_costs_its_sessions_nothing_but_quality(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str, black_avatar: str
) -> None:
    url = await run_app(create_app(settings, losing_ladders))
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("good", avatar), gid)
    await frames_of(redis, "good", 3)
    await place(registry, record("bad", black_avatar), gid)
    async with asyncio.timeout(20):
        while not await redis.exists(keys.suspect("bad")):
            await asyncio.sleep(0.02)
    for session_id in ("good", "bad"):
        assert len(await frames_of(redis, session_id, 5)) >= 5
        assert await registry.owner(session_id) == gid
    async with asyncio.timeout(10):
        while {stats.tier for one in ("good", "bad") if (stats := await registry.stats(one))} != {"warp"}:
            await asyncio.sleep(0.05)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/livez")).status_code == 200
    assert await metric(url, "mien_generator_sessions_ended_total", 'reason="failed"') == 0


@pytest.mark.slow
async def test_a_session_with_which_two_devices_were_lost_is_drawn_by_none(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, black_avatar: str
) -> None:
    registry = Registry(redis)
    assert await registry.accuse(["bad"]) == [], "another generator has lost its device with this session"
    await run_app(create_app(settings, losing_ladders))
    await place(registry, record("bad", black_avatar), await generator_id(registry))
    async with asyncio.timeout(20):
        while await redis.get(keys.suspect("bad")) != b"2":
            await asyncio.sleep(0.02)
    assert len(await frames_of(redis, "bad", 5)) >= 5


async def test_a_face_that_fails_ends_its_session_on_every_generator(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, avatar: str, black_avatar: str
) -> None:
    urls = [await run_app(create_app(settings, poisoned_ladders)) for _ in range(2)]
    registry = Registry(redis)
    gid = await generator_id(registry)
    await place(registry, record("good", avatar), gid)
    await place(registry, record("bad", black_avatar), gid)
    async with asyncio.timeout(10):
        while await registry.session("bad") is not None:
            await asyncio.sleep(0.02)
    assert await registry.end_reason("bad") is EndReason.FAILED
    assert await registry.owner("bad") is None
    assert len(await frames_of(redis, "good", 5)) >= 5
    ended = [await metric(url, "mien_generator_sessions_ended_total", 'reason="failed"') for url in urls]
    assert sorted(ended) == [0, 1]
    assert [await started(url, "claimed") for url in urls] == [0, 0]
    async with httpx.AsyncClient(trust_env=False) as http:
        assert [(await http.get(f"{url}/livez")).status_code for url in urls] == [200, 200]


async def test_a_dead_thread_makes_livez_fail(
    run_app: RunApp, settings: GeneratorSettings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await run_app(create_app(settings, make_ladders))
    await generator_id(Registry(redis))

    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("the schedule is broken")

    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, asyncio.timeout(10):
        assert (await http.get("/livez")).status_code == 200
        monkeypatch.setattr("mien_generator.engine.board.gather", broken)
        while (answer := await http.get("/livez")).status_code == 200:
            await asyncio.sleep(0.02)
    assert answer.status_code == 503
    assert re.fullmatch(r"the pool \d thread has failed: the schedule is broken", answer.json()["reasons"]["engine"])
