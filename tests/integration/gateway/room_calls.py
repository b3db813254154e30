"""Calls about rooms, as an application's server and its clients make them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

PATIENCE_S = 30
#: States without a sequence number, which come at any time.
LIVE = {"active_speakers", "slots"}


async def new_room(gateway: Any, **fields: Any) -> str:
    answer = await gateway.http.post("/v1/rooms", json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["room_id"])


async def joined(gateway: Any, room_id: str, identity: str, *grants: str, **fields: Any) -> dict[str, Any]:
    body = {"identity": identity, "grants": list(grants) or ["publish", "watch"], **fields}
    answer = await gateway.http.post(f"/v1/rooms/{room_id}/participants", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def bearer(one: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {one['token']}"}


def events_of(gateway: Any, room_id: str, token: str, since: int | str | None = None, **options: Any) -> connect:
    """A connection as a browser makes it, with the token as a subprotocol."""
    query = "" if since is None else f"?since={since}"
    url = f"ws{gateway.url.removeprefix('http')}/v1/rooms/{room_id}/events{query}"
    offered = [Subprotocol("mien.room.v1"), Subprotocol(f"bearer.{token}")]
    return connect(url, subprotocols=offered, proxy=None, **options)


async def next_event(socket: ClientConnection, kind: str | None = None) -> dict[str, Any]:
    """The next event that is no live state, or the next one of this type."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] == kind or (kind is None and event["type"] not in LIVE):
                return event


async def closed(socket: ClientConnection) -> tuple[int | None, list[str]]:
    """The code that the gateway closes with, and the types of the events before it, apart from live states."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen.append(str(json.loads(await socket.recv())["type"]))
    except ConnectionClosed as error:
        return (error.rcvd.code if error.rcvd else None), [kind for kind in seen if kind not in LIVE]


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))
