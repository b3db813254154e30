"""What the hostile viewers share: requests to a WHEP endpoint, and what the attacked service shows of itself."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A WHEP URL, and the token that opens it (None for a demo)."""

    url: str
    token: str | None = None

    async def post(self, client: httpx.AsyncClient, offer: str) -> httpx.Response:
        headers = {"Content-Type": "application/sdp"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return await client.post(self.url, content=offer.encode(), headers=headers)

    async def metric(self, client: httpx.AsyncClient, line: str) -> float:
        """A figure of the service's /metrics, 0 if it has none of this name."""
        parts = urlsplit(self.url)
        text = (await client.get(urlunsplit((parts.scheme, parts.netloc, "/metrics", "", "")))).text
        return next((float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line + " ")), 0.0)

    async def resident_mb(self, client: httpx.AsyncClient) -> float:
        return round(await self.metric(client, "process_resident_memory_bytes") / 1e6, 1)


def new_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)


def verdicts(answer: str) -> list[str]:
    """What an answer says about each media section: "video sendonly", "audio refused"."""
    found: list[str] = []
    for line in answer.splitlines():
        if line.startswith("m="):
            kind, port = line[2:].split(" ")[:2]
            found.append(f"{kind} refused" if port == "0" else kind)
        elif line[2:] in {"sendrecv", "sendonly", "recvonly", "inactive"} and not found[-1].endswith("refused"):
            found[-1] += f" {line[2:]}"
    return found


async def connect(
    endpoint: Endpoint, client: httpx.AsyncClient, peer: RTCPeerConnection, within_s: float = 15.0
) -> str:
    """Offer what `peer` has, and wait until its connection is up; returns the answer. Raises if it does not come up."""
    await peer.setLocalDescription(await peer.createOffer())
    response = await endpoint.post(client, peer.localDescription.sdp)
    response.raise_for_status()
    await peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
    async with asyncio.timeout(within_s):
        while peer.getTransceivers()[0].receiver.transport.state != "connected":
            await asyncio.sleep(0.01)
    return response.text


def main(description: str, attack: Callable[[Endpoint, float], Coroutine[Any, Any, Any]]) -> None:
    """The command line of an attack; prints its result, a dataclass, as JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("url", help="WHEP URL of a session that you may attack.")
    parser.add_argument("--token", help="Token that grants watch. A demo needs none.")
    parser.add_argument("--seconds", type=float, default=8.0, help="How long the attack lasts. Default: 8.")
    chosen = parser.parse_args()
    print(json.dumps(asdict(asyncio.run(attack(Endpoint(chosen.url, chosen.token), chosen.seconds)))))
