"""HEAD and a slash at the end of a path, on the routes of both services over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import mien_web
from mien_gateway import app as gateway
from mien_gateway.bundled import BUNDLED_AVATAR_ID, bundled_ids
from mien_gateway.settings import GatewaySettings
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_signaling import app as signaling
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
KEY = "an operator's key of thirty-two bytes or more"
#: What differs from one answer to the next.
CHANGING = {"date", "content-length"}

RunApp = Callable[[FastAPI], Awaitable[str]]


@pytest.fixture
async def gateway_url(redis_server: EmbeddedRedis, run_app: RunApp, tmp_path: Path) -> str:
    values = {
        "redis_url": redis_server.url,
        "token_secret": SECRET,
        "api_keys": [KEY],
        "avatar_store": f"file:{tmp_path / 'avatars'}",
        "web_root": mien_web.ROOT,
    }
    return await run_app(gateway.create_app(GatewaySettings.model_validate(values)))


@pytest.fixture
async def signaling_url(redis_server: EmbeddedRedis, run_app: RunApp) -> str:
    values = {"redis_url": redis_server.url, "token_secret": SECRET}
    return await run_app(signaling.create_app(SignalingSettings.model_validate(values)))


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30)


async def assert_head_is_like_get(http: httpx.AsyncClient, path: str) -> None:
    got, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b""), path
    for name in set(got.headers) - CHANGING:
        assert head.headers.get(name) == got.headers[name], (path, name)
    assert ("content-length" in head.headers) == ("content-length" in got.headers), path


async def test_head_on_the_gateway(gateway_url: str) -> None:
    async with client(gateway_url) as http:
        for path in (
            "/",
            "/livez",
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/docs",
            "/static/app.js",
            "/v1/avatars",
            f"/v1/avatars/{BUNDLED_AVATAR_ID}",
            f"/v1/avatars/{BUNDLED_AVATAR_ID}/picture",
            "/v1/ice-servers",
            "/nowhere",
        ):
            await assert_head_is_like_get(http, path)
        assert (await http.head("/")).status_code == 200


async def test_head_on_signaling(signaling_url: str) -> None:
    async with client(signaling_url) as http:
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/nowhere"):
            await assert_head_is_like_get(http, path)
        whep = await http.head("/v1/whep/one")
        assert (whep.status_code, whep.headers["accept-post"]) == (200, "application/sdp")


async def test_a_slash_at_the_end_of_the_gateway_s_paths(gateway_url: str) -> None:
    async with client(gateway_url) as http:
        async with asyncio.timeout(60):  # the gateway stores its bundled avatars after its start
            while len((await http.get("/v1/avatars")).json()["avatars"]) < len(bundled_ids()):
                await asyncio.sleep(0.05)
        for path in ("/livez", "/docs", "/v1/avatars", f"/v1/avatars/{BUNDLED_AVATAR_ID}", "/v1/sessions", "/nowhere"):
            plain, slashed = await http.get(path), await http.get(f"{path}/")
            assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content), path
            assert slashed.headers.get("content-security-policy") == plain.headers["content-security-policy"], path
        large = {"image": ("a", bytes(2_000_000))}
        for path in ("/v1/avatars", "/v1/avatars/"):
            assert (await http.post(path, files=large, data={"consent": "drawn"})).json()[
                "type"
            ] == "urn:mien:problem:not-an-image", path
        for path in ("/v1/sessions", "/v1/sessions/"):
            assert (await http.post(path, json={"avatar_id": "nobody"})).status_code == 404
            assert (await http.post(path, content=bytes(20_000))).status_code == 413


async def test_a_slash_at_the_end_of_signaling_s_paths(signaling_url: str) -> None:
    async with client(signaling_url) as http:
        for path in ("/v1/whep/one", "/v1/whep/one/two"):
            for method in ("OPTIONS", "POST", "PATCH", "DELETE", "GET"):
                plain, slashed = await http.request(method, path), await http.request(method, f"{path}/")
                assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content), (method, path)
