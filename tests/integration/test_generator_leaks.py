"""A thousand sessions opened and closed in one engine leave nothing behind: no thread, no prepared face, no memory."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
import weakref
from pathlib import Path

import pytest
from engines import BalancedEngine, running_engine

from mien_generator.cost import BatchCost
from mien_generator.engine.session import Arrival, SessionAvatar
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder
from mien_generator.metrics import EndedBy, GeneratorMetrics
from mien_generator.specimen import CROP, draw_speaker, face_of
from mien_shared.bus.messages import EncodedFrame, SessionRecord
from mien_shared.clock import SystemClock
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

pytestmark = pytest.mark.integration

CYCLES = 1000
#: An encoder holds about 6 MB and a picture 1.4 MB: one session in fifty that stayed would show.
ALLOWED_BYTES = 60e6


@pytest.mark.long
async def test_a_thousand_sessions_leave_nothing_behind() -> None:
    clock, metrics = SystemClock(), GeneratorMetrics()
    network = WarpGenerator()
    network.name = "network"
    ladder = Ladder((Rung("network-384", network, on_device=True), Rung("warp", WarpGenerator(), on_device=False)))
    seen: set[str] = set()

    def publish(session_id: str, frame: EncodedFrame) -> None:
        seen.add(session_id)

    still = draw_speaker()
    face = face_of(still)
    avatars: weakref.WeakSet[SessionAvatar] = weakref.WeakSet()

    async def cycle(engine: BalancedEngine, number: int) -> None:
        avatar = SessionAvatar(face)
        avatars.add(avatar)
        record = SessionRecord(session_id=f"s{number}", avatar_id="a", created_at_ms=0)
        await engine.add(record, avatar, Compositor(still, CROP), H264Encoder())
        packet = MotionPacket(number & 0xFFFF, 0, Keypoints.at_rest())
        engine.offer(record.session_id, Arrival(packet, 128, time.time_ns() // 1000, clock.monotonic_s()))
        if number % 10 == 0:  # some leave after a frame, most before their first or in the midst of it
            async with asyncio.timeout(20):
                while record.session_id not in seen:
                    await asyncio.sleep(0.002)
        engine.remove(record.session_id, EndedBy.STOPPED)

    async with running_engine(ladder, {0: BatchCost.linear(0.003)}, publish, metrics) as engine:
        for number in range(CYCLES // 10):
            await cycle(engine, number)
        threads, before_bytes = threading.active_count(), resident_bytes()
        for number in range(CYCLES // 10, CYCLES):
            await cycle(engine, number)
        async with asyncio.timeout(20):
            while avatars:
                await asyncio.sleep(0.02)
        assert engine.records() == []
        assert threading.active_count() == threads
        assert resident_bytes() - before_bytes < ALLOWED_BYTES
        assert engine.failure is None
        assert engine.device is not None
        assert engine.device.failure is None
    assert metrics.registry.get_sample_value("mien_generator_sessions_ended_total", {"reason": "stopped"}) == CYCLES


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
