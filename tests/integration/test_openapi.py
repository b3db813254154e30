"""What the OpenAPI documents say is what the services do: schemathesis asks for all that they describe, and more."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mien_gateway import app as gateway
from mien_gateway.settings import GatewaySettings
from mien_shared.avatars import AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import GeneratorStatus, SessionRecord
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.keypoints import Keypoints
from mien_signaling import app as signaling
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
API_KEY = "an operator's key of thirty-two bytes or more"
SESSION_ID = "one"
UNLIMITED = 10**9

RunApp = Callable[[FastAPI], Awaitable[str]]


async def run_schemathesis(url: str, authorization: str, folder: Path) -> None:
    """Fails with schemathesis' own report unless everything agrees."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {authorization}"),
        *("--checks", "all", "--seed", "1", "--max-examples", "15", "--workers", "1", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"),
        # 404 and 409 are not in the schema's hands: they depend on what there is.
        *("--exclude-checks", "positive_data_acceptance"),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()


async def test_the_gateway(redis_server: EmbeddedRedis, run_app: RunApp, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "redis_url": redis_server.url,
        "token_secret": SECRET,
        "api_keys": [API_KEY],
        "avatar_store": f"file:{tmp_path / 'avatars'}",
        "requests_per_minute": UNLIMITED,
        "sessions_per_minute": UNLIMITED,
        "uploads_per_minute": UNLIMITED,
        "max_session_s": 0,
        "max_room_s": 0,
        "max_rooms_per_key": 0,
    }
    settings = GatewaySettings.model_validate(values)
    record = AvatarRecord(
        avatar_id="someone",
        width=1280,
        height=720,
        face_box=FaceBox(x=448, y=120, size=384),
        keypoints=[tuple(row) for row in Keypoints.at_rest().rows().tolist()],
    )
    await AvatarStore.open(settings.avatar_store).put(record, b"\x89PNG")
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id=SESSION_ID, avatar_id="someone", created_at_ms=0))
        room = RoomRecord(
            room_id="room", owner="x", created_at_ms=0, max_participants=10**6, empty_timeout_s=10**6, life_s=3600
        )
        now = (await Rooms(redis).read("room")).now_ms
        guest = ParticipantRecord(
            participant_id="guest",
            identity="guest",
            name="guest",
            grants=frozenset({Grant.PUBLISH}),
            state=ParticipantState.ACTIVE,
            joined_at_ms=now + 3_600_000,  # no limit reaches it during the test
        )
        await Rooms(redis).commit("room", "", Commit(3600, room, [guest], (), (), {}, None))
        beating = asyncio.create_task(beat(Registry(redis)))
        try:
            await run_schemathesis(await ready(run_app, gateway.create_app(settings)), API_KEY, tmp_path)
        finally:
            beating.cancel()


async def beat(registry: Registry) -> None:
    """A generator that would take any number of sessions."""
    while True:
        await registry.heartbeat(GeneratorStatus(generator_id="g", capacity=10_000, sessions=0, backend="none"))
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)


async def test_signaling(redis_server: EmbeddedRedis, run_app: RunApp, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "redis_url": redis_server.url,
        "token_secret": SECRET,
        "joins_per_minute": UNLIMITED,
        "session_joins_per_minute": UNLIMITED,
        "updates_per_minute": UNLIMITED,
    }
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id=SESSION_ID, avatar_id="a", created_at_ms=0))
    token = TokenIssuer(SECRET).issue(SESSION_ID, SPEAKER_GRANTS)
    app = signaling.create_app(SignalingSettings.model_validate(values))
    await run_schemathesis(await ready(run_app, app), token, tmp_path)


async def ready(run_app: RunApp, app: FastAPI) -> str:
    url = await run_app(app)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, asyncio.timeout(20):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
    return url
