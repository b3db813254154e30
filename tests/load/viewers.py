"""A process of viewers: real peers with ICE, DTLS and SRTP that receive every frame but decode none.

A 720p decoder takes a fifth of a core, so many decoders would disturb the measurement. A viewer here is the SDK's: its
receiver answers with NACK, PLI, REMB and reports as usual, but its frames are dropped before the decoder. Frames are
counted, and their traces are read, from the depacketised access units, as soon as the last packet (with RTP's marker)
is there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

from aiortc.rtp import RtpPacket
from load.workers import serve
from pydantic import BaseModel

from mien_bench.latency import tap
from mien_client.api import MienError, Session, Unreachable
from mien_client.viewer import Viewer
from mien_client.whep import WhepError
from mien_shared.media.clock import elapsed_ms_u32
from mien_shared.media.frame_trace import read_trace
from mien_shared.wire.motion import sequence_distance

_JOINING_AT_ONCE = 4
_FIRST_FRAME_TIMEOUT_S = 10.0


class ViewersOrder(BaseModel):
    """watch: also join these sessions, once per entry. begin: reset the counters. report: return the counters."""

    kind: Literal["watch", "begin", "report"]
    sessions: list[Session] = []


class ViewersReport(BaseModel):
    """Counters since `begin`: frames of each viewer, bytes and latencies (milliseconds) of all viewers.

    refused and failed count from the start: joins that the service refused, by code, and joins without a first frame.
    lost: connections that ended unexpectedly. broken_frames: frames with a missing or late packet.
    """

    frames: list[int]
    received_bytes: int
    latencies_ms: list[int]
    stalled_frames: int
    broken_frames: int
    refused: dict[str, int]
    failed: int
    lost: int


@dataclass
class Sight:
    """The counters of one viewer since `begin`."""

    frames: int = 0
    received_bytes: int = 0
    latencies_ms: list[int] = field(default_factory=list)
    stalled_frames: int = 0
    broken_frames: int = 0


class AccessUnits:
    """Assembles one viewer's packets into frames, and reads each frame when its last packet has arrived."""

    def __init__(self) -> None:
        self.sight = Sight()
        self.first_frame = asyncio.Event()
        self._parts: list[bytes] = []
        self._newest: int | None = None
        self._whole = False

    def add(self, packet: RtpPacket) -> None:
        """Add one packet, in order of arrival. Its `_data` is Annex B, as depacketised by aiortc."""
        now_ms = time.time_ns() // 1_000_000
        self.sight.received_bytes += len(packet.payload)
        if self._newest is not None:
            ahead = sequence_distance(packet.sequence_number, self._newest)
            if ahead <= 0:
                return  # retransmitted or overtaken: its frame counts as broken
            self._whole = self._whole and ahead == 1
        self._newest = packet.sequence_number
        self._parts.append(getattr(packet, "_data", b""))
        if packet.marker:
            if self._whole:
                self._frame(b"".join(self._parts), now_ms)
            elif self.sight.frames:
                self.sight.broken_frames += 1
            self._parts, self._whole = [], True

    def _frame(self, access_unit: bytes, now_ms: int) -> None:
        self.sight.frames += 1
        self.first_frame.set()
        trace = read_trace(access_unit)
        if trace is None or trace.is_stalled:
            self.sight.stalled_frames += 1
        else:
            self.sight.latencies_ms.append(elapsed_ms_u32(now_ms & 0xFFFF_FFFF, trace.capture_ms))


class Viewers:
    """All viewers of this process."""

    def __init__(self, contexts: AsyncExitStack) -> None:
        self._contexts = contexts
        self._joining = asyncio.Semaphore(_JOINING_AT_ONCE)
        self._watching: list[tuple[Viewer, AccessUnits]] = []
        self._refused: Counter[str] = Counter()
        self._failed = 0

    async def handle(self, order: ViewersOrder) -> ViewersReport:
        if order.kind == "watch":
            await asyncio.gather(*(self._join(session) for session in order.sessions))
        elif order.kind == "begin":
            for _, units in self._watching:
                units.sight = Sight()
        sights = [units.sight for _, units in self._watching]
        return ViewersReport(
            frames=[sight.frames for sight in sights],
            received_bytes=sum(sight.received_bytes for sight in sights),
            latencies_ms=[latency for sight in sights for latency in sight.latencies_ms],
            stalled_frames=sum(sight.stalled_frames for sight in sights),
            broken_frames=sum(sight.broken_frames for sight in sights),
            refused=dict(self._refused),
            failed=self._failed,
            lost=sum(viewer.connection.lost.is_set() for viewer, _ in self._watching),
        )

    async def _join(self, session: Session) -> None:
        async with self._joining:
            viewer, units = Viewer(session.whep_url, session.watch_token), AccessUnits()
            try:
                await self._contexts.enter_async_context(viewer)
                tap(viewer.connection.peer.getReceivers()[0], units.add)
                async with asyncio.timeout(_FIRST_FRAME_TIMEOUT_S):
                    await units.first_frame.wait()
            except MienError as error:
                self._refused[error.code] += 1
            except (Unreachable, WhepError, TimeoutError):
                self._failed += 1
            else:
                self._watching.append((viewer, units))


async def main() -> None:
    async with AsyncExitStack() as contexts:
        await serve(ViewersOrder, Viewers(contexts).handle)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
