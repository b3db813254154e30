"""Test from outside what a TURN server allows, with a real TURN client. Prints one JSON object.

Reads one JSON object from standard input: {"server": [host, port], "username", "credential", "expired": {"username",
"credential"}, "allowed": [address, ...], "denied": [address, ...]}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioice import stun
from aioice.turn import TurnClientUdpProtocol

_PORT = 20000
_LIFETIME_S = 600
_FIRST_CHANNEL = 0x4000


@asynccontextmanager
async def client(server: tuple[str, int], username: str, credential: str) -> AsyncIterator[Any]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: TurnClientUdpProtocol(server, username, credential, _LIFETIME_S, _LIFETIME_S), remote_addr=server
    )
    try:
        yield protocol
    finally:
        transport.close()


async def allocated(server: tuple[str, int], username: str, credential: str) -> str:
    """ "allocated", or the error code of the refusal."""
    async with client(server, username, credential) as protocol:
        try:
            await protocol.connect()
        except stun.TransactionFailed as failed:
            return str(failed.response.attributes["ERROR-CODE"][0])
        await protocol.delete()
        return "allocated"


async def main() -> None:
    asked = json.load(sys.stdin)
    server = (asked["server"][0], asked["server"][1])
    answers = {
        "right": await allocated(server, asked["username"], asked["credential"]),
        "wrong": await allocated(server, asked["username"], "not" + asked["credential"]),
        "expired": await allocated(server, asked["expired"]["username"], asked["expired"]["credential"]),
    }
    peers = {}
    async with client(server, asked["username"], asked["credential"]) as protocol:
        await protocol.connect()
        for channel, address in enumerate([*asked["allowed"], *asked["denied"]], _FIRST_CHANNEL):
            try:
                await protocol.channel_bind(channel, (address, _PORT))
            except stun.TransactionFailed as failed:
                peers[address] = str(failed.response.attributes["ERROR-CODE"][0])
            else:
                peers[address] = "allowed"
        await protocol.delete()
    sys.stdout.write(json.dumps({"credentials": answers, "peers": peers}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
