"""The gateway as a process of its own: what only `python -m mien_gateway` can show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.callers import now_ms
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from mien_gateway.uplinks import MAX_MESSAGE_BYTES
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
API_KEY = "an operator's key of thirty-two bytes or more"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def process(
    tmp_path: Path, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """A ready gateway process and a client for it."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MIEN_", "REDIS_"))}
    settings = {
        "MIEN_PORT": str(port),
        "MIEN_TOKEN_SECRET": SECRET,
        "MIEN_API_KEYS": API_KEY,
        "MIEN_AVATAR_STORE": f"file:{tmp_path / 'avatars'}",
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mien_gateway", env=inherited | settings | environment
    )
    try:
        bearer = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=bearer, trust_env=False, timeout=30
        ) as http:
            async with asyncio.timeout(30):
                while True:
                    assert running.returncode is None, "the gateway ended while starting"
                    try:
                        if (await http.get("/readyz")).is_success:
                            break
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.05)
            yield running, http
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def ended(pid: int) -> None:
    """Wait until a process is gone."""
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that this one started, whatever session they are in."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def start_worker(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/avatars", files={"image": ("a", b"hello"), "consent": (None, "drawn")})
    assert answer.status_code == 415


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_the_gateway(how: signal.Signals, tmp_path: Path) -> None:
    async with process(tmp_path) as (running, http):  # no REDIS_URL: it has an embedded one
        await start_worker(http)
        started = children(running.pid)
        assert len(started) >= 2, "the embedded Redis and the portrait worker"
        running.send_signal(how)
        await running.wait()
        for pid in started:
            await ended(pid)
        if how is not signal.SIGKILL:
            assert running.returncode in {0, -how}


async def test_a_message_beyond_the_limit_closes_the_uplink(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id="s", avatar_id="a", created_at_ms=now_ms()))
    async with process(tmp_path, REDIS_URL=redis_server.url) as (_, http):
        url = f"ws://127.0.0.1:{http.base_url.port}/v1/sessions/s/uplink"
        headers = {"Authorization": f"Bearer {TokenIssuer(SECRET).issue('s', SPEAKER_GRANTS)}"}
        async with connect(url, additional_headers=headers, proxy=None) as uplink:
            await uplink.send(b"\1" * MAX_MESSAGE_BYTES)  # no motion packet, but not too long to be looked at
            async with asyncio.timeout(20):
                while 'mien_uplink_packets_total{result="length"} 1.0' not in (await http.get("/metrics")).text:
                    await asyncio.sleep(0.02)
            await uplink.send(b"\1" * (MAX_MESSAGE_BYTES + 1))
            with pytest.raises(ConnectionClosed) as caught:
                await uplink.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        metrics = (await http.get("/metrics")).text
        assert 'mien_uplink_packets_total{result="length"} 1.0' in metrics, "the longer one never got that far"


async def asks(http: httpx.AsyncClient, address: str, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
    return await http.post("/v1/sessions", json={"avatar_id": "nobody"}, headers=headers)


async def test_a_key_is_limited_wherever_it_is_used_from(tmp_path: Path) -> None:
    second = "another operator's key of thirty-two bytes"
    async with process(
        tmp_path,
        MIEN_SESSIONS_PER_MINUTE="8",
        MIEN_API_KEYS=f"{API_KEY}\n{second}\n",
        MIEN_TRUSTED_PROXIES="127.0.0.1",
    ) as (_, http):
        answers = [await asks(http, f"192.0.2.{i}", API_KEY) for i in range(3)]
        assert [answer.status_code for answer in answers] == [404, 404, 429]
        assert answers[2].json()["detail"] == "too many requests from this API key"
        assert int(answers[2].headers["retry-after"]) > 0
        assert (await asks(http, "192.0.2.9", second)).status_code == 404


@pytest.mark.parametrize(
    ("proxies", "statuses"),
    [("127.0.0.0/8", [404] * 3), ("*", [404] * 3), ("192.0.2.1", [404, 404, 429]), ("", [404, 404, 429])],
)
async def test_only_a_trusted_proxy_says_whose_request_it_is(tmp_path: Path, proxies: str, statuses: list[int]) -> None:
    keys = [f"operator number {i} has a key of thirty-two bytes" for i in range(3)]
    async with process(
        tmp_path,
        MIEN_SESSIONS_PER_MINUTE="8",
        MIEN_API_KEYS=",".join(keys),
        MIEN_TRUSTED_PROXIES=proxies,
        FORWARDED_ALLOW_IPS="*",  # uvicorn's own variable is not asked
    ) as (_, http):
        answers = [await asks(http, f"192.0.2.{i}", key) for i, key in enumerate(keys)]
        assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"MIEN_API_KEYS": ""}, "MIEN_API_KEYS is empty, so no caller could create a session"),
        ({"MIEN_TOKEN_SECRET": "short"}, "MIEN_TOKEN_SECRET needs at least 32 bytes"),
        ({"MIEN_DEMO_OPEN": "true", "MIEN_HOST": "0.0.0.0"}, "MIEN_DEMO_OPEN works on loopback only"),
        ({"MIEN_WEB_ROOT": "/nowhere"}, "there is no index.html in /nowhere"),
    ],
)
def test_bad_settings_end_it_at_once_with_the_reason(environment: dict[str, str], text: str) -> None:
    settings: dict[str, Any] = {**os.environ, "MIEN_TOKEN_SECRET": SECRET, "MIEN_API_KEYS": API_KEY, **environment}
    answer = subprocess.run([sys.executable, "-m", "mien_gateway"], env=settings, capture_output=True, check=False)
    assert answer.returncode != 0
    assert text in answer.stderr.decode()
