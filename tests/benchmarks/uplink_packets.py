"""How many uplink packets a second one core of the gateway takes: `python tests/benchmarks/uplink_packets.py`.

A real gateway process, real WebSockets, an embedded Redis; every packet is accepted and forwarded. Measured is the
gateway's own CPU time, so that the sender beside it does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect

from mien_shared.bus import open_redis
from mien_shared.embedded_redis import EmbeddedRedis
from mien_shared.messages import SessionRecord
from mien_shared.motion import Keypoints, MotionPacket
from mien_shared.registry import Registry
from mien_shared.tokens import SPEAKER_GRANTS, TokenIssuer

_AT_REST = Keypoints.at_rest()


def cpu_s(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def open_uplinks(count: int, redis_url: str, base: str, tokens: TokenIssuer) -> list[ClientConnection]:
    """Sessions that a generator nobody reads for holds, and an uplink to each."""
    uplinks = []
    async with open_redis(redis_url) as redis:
        registry = Registry(redis)
        for i in range(count):
            session_id = f"s{i}"
            await registry.keep_alive(SessionRecord(session_id=session_id, avatar_id="a", created_at_ms=0))
            await registry.hold("nobody", session_id, 3_600_000)
            headers = {"Authorization": f"Bearer {tokens.issue(session_id, SPEAKER_GRANTS)}"}
            url = f"{base}/v1/sessions/{session_id}/uplink"
            uplinks.append(await connect(url, additional_headers=headers, proxy=None, compression=None))
    return uplinks


async def measure(uplinks: int, packets_per_s: float, seconds: float) -> None:
    secret = secrets.token_urlsafe(48)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        settings = {
            "REDIS_URL": redis.url,
            "MIEN_PORT": str(port),
            "MIEN_TOKEN_SECRET": secret,
            "MIEN_DEMO_OPEN": "true",
            "MIEN_AVATAR_STORE": f"file:{folder}",
            "MIEN_LOG_LEVEL": "WARNING",
        }
        gateway = await asyncio.create_subprocess_exec(sys.executable, "-m", "mien_gateway", env=os.environ | settings)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                await until_ready(http)
                sockets = await open_uplinks(uplinks, redis.url, f"ws://127.0.0.1:{port}", TokenIssuer(secret))
                used_s, started_s = cpu_s(gateway.pid), time.monotonic()
                for i in range(int(seconds * packets_per_s)):
                    packet = MotionPacket(i & 0xFFFF, 0, _AT_REST).pack()
                    for uplink in sockets:
                        await uplink.send(packet)
                    await asyncio.sleep(max(0.0, started_s + (i + 1) / packets_per_s - time.monotonic()))
                elapsed_s, used_s = time.monotonic() - started_s, cpu_s(gateway.pid) - used_s
                taken = await accepted(http)
        finally:
            gateway.terminate()
            await gateway.wait()
    print(
        f"{uplinks} uplinks, {taken / elapsed_s:.0f} packets/s taken, gateway at {used_s / elapsed_s:.0%} of a core: "
        f"{taken / used_s:.0f} packets a core-second"
    )


async def until_ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await http.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def accepted(http: httpx.AsyncClient) -> float:
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == "mien_uplink_packets_total" and sample.labels == {"result": "accepted"}:
                return float(sample.value)
    raise LookupError("the gateway does not count its packets")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uplinks", type=int, default=100)
    parser.add_argument("--packets-per-s", type=float, default=30.0, help="of each uplink")
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.uplinks, chosen.packets_per_s, chosen.seconds))
