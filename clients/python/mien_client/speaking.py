"""Plays a recorded motion track into a session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mien_client.uplink import Uplink
from mien_client.whip import WhipUplink
from mien_shared.wire.track import MotionTrack

ASSETS = Path(__file__).parent / "assets"
#: The demo's speaker. README.md in the same folder names its source.
DEMO_TRACK = ASSETS / "speaker.motion"


def capture_clock_ms() -> int:
    """The sender's clock as packets carry it: Unix milliseconds modulo 2^32."""
    return time.time_ns() // 1_000_000 & 0xFFFF_FFFF


async def play(track: MotionTrack, uplink: Uplink | WhipUplink, clock_s: Callable[[], float] = time.monotonic) -> None:
    """Send a track in a loop at its own pace. Each packet's capture time is its sending time. Runs until cancelled."""
    start_s = clock_s()
    for at_s, packet in track.looped():
        await asyncio.sleep(max(0.0, start_s + at_s - clock_s()))
        uplink.push(replace(packet, capture_ms=capture_clock_ms()))
