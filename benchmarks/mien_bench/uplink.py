"""`mien bench uplink`: motion packets that one core receives, compared with a plain FastAPI WebSocket that reads JSON.

The bench runs both servers one after the other, each in a separate process, with the same senders and the same
embedded Redis. Ours is the real gateway, with tokens, checks, leases and 128 binary bytes a packet. The plain server
has one open socket for each session, validates each packet as JSON and publishes it. The bench measures the CPU time
of the server process.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

import click
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field
from websockets.asyncio.client import ClientConnection, connect

from mien_bench.process import cpu_seconds, free_port
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

_PACKETS_PER_S = 30
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0
_LEASE_MS = 3_600_000


class PlainMotion(BaseModel):
    """A motion packet in plain JSON, not optimised for size."""

    sequence: int
    capture_ms: int
    keypoints: list[list[float]] = Field(min_length=10, max_length=10)


def plain_app(redis_url: str) -> FastAPI:
    """The usual way: receive JSON, validate it, publish it as JSON."""
    app = FastAPI()
    redis = open_redis(redis_url)

    @app.websocket("/v1/sessions/{session_id}/uplink")
    async def uplink(socket: WebSocket, session_id: str) -> None:
        await socket.accept()
        try:
            while True:
                motion = PlainMotion.model_validate_json(await socket.receive_text())
                await redis.xadd(f"motion:{session_id}", {"m": motion.model_dump_json()}, maxlen=60)
        except WebSocketDisconnect:
            return

    return app


@dataclass(frozen=True, slots=True)
class WayFigures:
    """The result for one server. core: the share of one core that it used. bytes_per_packet: payload on the wire."""

    packets_per_s: float
    core: float
    packets_per_core_second: float
    bytes_per_packet: int


@dataclass(frozen=True, slots=True)
class UplinkFigures:
    """ratio: our packets per core-second divided by those of the plain server."""

    uplinks: int
    ours: WayFigures
    plain: WayFigures
    ratio: float


async def measure(uplinks: int, seconds: float) -> UplinkFigures:
    """Measure both servers, one after the other."""
    with EmbeddedRedis() as server:
        ours = await _measure_ours(server.url, uplinks, seconds)
        plain = await _measure_plain(server.url, uplinks, seconds)
    return UplinkFigures(uplinks, ours, plain, round(ours.packets_per_core_second / plain.packets_per_core_second, 2))


async def _measure_ours(redis_url: str, uplinks: int, seconds: float) -> WayFigures:
    secret, port = secrets.token_urlsafe(48), free_port()
    motion = Keypoints.at_rest()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "REDIS_URL": redis_url,
            "MIEN_HOST": _HOST,
            "MIEN_PORT": str(port),
            "MIEN_TOKEN_SECRET": secret,
            "MIEN_DEMO_OPEN": "true",
            "MIEN_AVATAR_STORE": f"file:{folder}",
            "MIEN_LOG_LEVEL": "WARNING",
        }
        async with _serving(("-m", "mien_gateway"), environment, port) as pid, open_redis(redis_url) as redis:
            registry, tokens, headers = Registry(redis), TokenIssuer(secret), {}
            now_ms = int(time.time() * 1000)
            for number in range(uplinks):
                session_id = f"s{number}"
                await registry.keep_alive(SessionRecord(session_id=session_id, avatar_id="a", created_at_ms=now_ms))
                await registry.hold("nobody", session_id, _LEASE_MS)
                headers[session_id] = {"Authorization": f"Bearer {tokens.issue(session_id, SPEAKER_GRANTS)}"}
            return await _send(
                pid, port, headers, seconds, lambda sequence: MotionPacket(sequence & 0xFFFF, 0, motion).pack()
            )


async def _measure_plain(redis_url: str, uplinks: int, seconds: float) -> WayFigures:
    port = free_port()
    rows = [[round(float(value), 5) for value in row] for row in Keypoints.at_rest().rows()]
    headers: dict[str, dict[str, str]] = {f"s{number}": {} for number in range(uplinks)}
    command = ("-m", "mien_bench.uplink", redis_url, str(port))
    async with _serving(command, {}, port) as pid:
        return await _send(
            pid,
            port,
            headers,
            seconds,
            lambda sequence: json.dumps({"sequence": sequence & 0xFFFF, "capture_ms": 0, "keypoints": rows}),
        )


async def _send(
    pid: int,
    port: int,
    headers: Mapping[str, Mapping[str, str]],
    seconds: float,
    packet_of: Callable[[int], bytes | str],
) -> WayFigures:
    """Send thirty packets a second on every uplink, in turn, and measure the server's CPU time."""
    async with AsyncExitStack() as contexts:
        sockets: list[ClientConnection] = []
        for session_id, own in headers.items():
            url = f"ws://{_HOST}:{port}/v1/sessions/{session_id}/uplink"
            connection = connect(url, additional_headers=dict(own), proxy=None, compression=None)
            sockets.append(await contexts.enter_async_context(connection))
        used_s, begun_s = cpu_seconds(pid), time.monotonic()
        rounds = int(seconds * _PACKETS_PER_S)
        for sequence in range(rounds):
            packet = packet_of(sequence)
            for one in sockets:
                await one.send(packet)
            await asyncio.sleep(max(0.0, begun_s + (sequence + 1) / _PACKETS_PER_S - time.monotonic()))
        elapsed_s, used_s = time.monotonic() - begun_s, cpu_seconds(pid) - used_s
    packets, size = rounds * len(sockets), len(packet_of(0))
    return WayFigures(round(packets / elapsed_s, 1), round(used_s / elapsed_s, 3), round(packets / used_s), size)


@asynccontextmanager
async def _serving(command: tuple[str, ...], environment: Mapping[str, str], port: int) -> AsyncIterator[int]:
    """Run a server process; yields its pid when it listens."""
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env={**os.environ, **environment})
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(_HOST, port)
                except ConnectionError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


@click.command()
@click.option("--uplinks", default=100, show_default=True, help="Number of sockets; each sends 30 packets a second.")
@click.option("--seconds", default=5.0, show_default=True, help="Seconds to measure each server.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def uplink(uplinks: int, seconds: float, as_json: bool) -> None:
    """Measure how many motion packets one core receives, compared with a plain FastAPI WebSocket with JSON."""
    figures = asyncio.run(measure(uplinks, seconds))
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    for name, way in (("ours", figures.ours), ("plain FastAPI, JSON", figures.plain)):
        click.echo(
            f"{name:20s} {way.packets_per_s:7.0f} packets/s at {way.core:.0%} of a core:"
            f" {way.packets_per_core_second:6.0f} a core-second, {way.bytes_per_packet} bytes each"
        )
    click.echo(f"ratio {figures.ratio}")


if __name__ == "__main__":
    uvicorn.run(plain_app(sys.argv[1]), host=_HOST, port=int(sys.argv[2]), log_level="warning", access_log=False)
