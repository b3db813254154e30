"""A process that stands for a generator and makes no faces.

It registers itself, holds its sessions by leases and reads its inbox with the code that every generator uses. It only
measures how old each packet is. Two cores cannot make two hundred faces, but they can carry two hundred uplinks; so
this process measures the path to the generator alone.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import Literal

from load.workers import serve
from pydantic import BaseModel

from mien_shared.bus.channels import GeneratorInbox
from mien_shared.bus.connection import open_redis
from mien_shared.bus.messages import GeneratorStatus, InboundMotion, StartSession, StopSession
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry, Renewal
from mien_shared.media.clock import elapsed_ms_u32

_CAPTURE_MS = slice(4, 8)  # of a motion packet


class InboxOrder(BaseModel):
    """begin: reset the counters. report: return the counters."""

    kind: Literal["begin", "report"]


class InboxReport(BaseModel):
    """Counters since `begin`.

    sent_to_inbox_ms: time since the sender's capture. received_to_inbox_ms: time since the gateway's receipt.
    """

    packets: int
    sessions: int
    sent_to_inbox_ms: list[int]
    received_to_inbox_ms: list[float]
    unknown: int
    lost_leases: int


class Inbox:
    """One generator's registration, leases and inbox."""

    def __init__(self, registry: Registry, capacity: int) -> None:
        self._registry = registry
        self._capacity = capacity
        self._generator_id = f"g-{secrets.token_hex(6)}"
        self._inbox = GeneratorInbox(registry.redis, self._generator_id)
        self._sessions: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._sent_to_inbox_ms: list[int] = []
        self._received_to_inbox_ms: list[float] = []
        self._unknown = 0
        self._lost_leases = 0

    async def handle(self, order: InboxOrder) -> InboxReport:
        if order.kind == "begin":
            self._begin()
        return InboxReport(
            packets=len(self._sent_to_inbox_ms),
            sessions=len(self._sessions),
            sent_to_inbox_ms=self._sent_to_inbox_ms,
            received_to_inbox_ms=self._received_to_inbox_ms,
            unknown=self._unknown,
            lost_leases=self._lost_leases,
        )

    async def beat(self) -> None:
        """Send heartbeats and renew the leases, until cancelled."""
        while True:
            status = GeneratorStatus(
                generator_id=self._generator_id, capacity=self._capacity, sessions=len(self._sessions), backend="none"
            )
            for session_id, renewal in (await self._registry.heartbeat(status, list(self._sessions))).items():
                if renewal in {Renewal.TAKEN_OVER, Renewal.ENDED}:
                    self._sessions.discard(session_id)
                    self._lost_leases += renewal is Renewal.TAKEN_OVER
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def read(self) -> None:
        """Read the inbox, until cancelled."""
        while True:
            messages = await self._inbox.read()
            now_us = time.time_ns() // 1000
            now_ms = now_us // 1000 & 0xFFFF_FFFF
            for message in messages:
                match message:
                    case InboundMotion(session_id, packet, received_unix_us):
                        captured_ms = int.from_bytes(packet[_CAPTURE_MS], "little")
                        self._sent_to_inbox_ms.append(elapsed_ms_u32(now_ms, captured_ms))
                        self._received_to_inbox_ms.append((now_us - received_unix_us) / 1000)
                        self._unknown += session_id not in self._sessions
                    case StartSession(session=session):
                        self._sessions.add(session.session_id)
                    case StopSession(session_id=session_id):
                        self._sessions.discard(session_id)


async def main(redis_url: str, capacity: int) -> None:
    async with open_redis(redis_url) as redis:
        inbox = Inbox(Registry(redis), capacity)
        loops = [asyncio.create_task(inbox.beat()), asyncio.create_task(inbox.read())]
        try:
            await serve(InboxOrder, inbox.handle)
            for loop in loops:
                if loop.done():
                    loop.result()  # raises the error that ended it
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
