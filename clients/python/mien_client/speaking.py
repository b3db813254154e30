"""Plays a recorded motion track into a session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mien_client.uplink import Uplink
from mien_client.whip import WhipUplink
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack

ASSETS = Path(__file__).parent / "assets"
#: The demo's speaker. README.md in the same folder names its source.
DEMO_TRACK = ASSETS / "speaker.motion"


@dataclass(frozen=True)
class RecordedSpeaker:
    """A motion track and the voice that is in step with it."""

    track: Path
    voice: Path


SPEAKERS = tuple(
    RecordedSpeaker(ASSETS / f"{name}.motion", ASSETS / f"{name}.ogg") for name in ("speaker", "speaker-2", "speaker-3")
)


def capture_clock_ms() -> int:
    """The sender's clock as packets carry it: Unix milliseconds modulo 2^32."""
    return time.time_ns() // 1_000_000 & 0xFFFF_FFFF


def voice_of(track: Path) -> Path | None:
    """The voice of a track: the file of the same name that ends in .ogg, None if there is none."""
    voice = track.with_suffix(".ogg")
    return voice if voice.is_file() else None


async def packets(
    track: MotionTrack, start_s: float | None = None, clock_s: Callable[[], float] = time.monotonic
) -> AsyncIterator[MotionPacket]:
    """A track's packets in a loop, each when it is due and with that moment as its capture time. Never ends.

    start_s: when the first one is due, default now.
    """
    start_s = clock_s() if start_s is None else start_s
    for at_s, packet in track.looped():
        await asyncio.sleep(max(0.0, start_s + at_s - clock_s()))
        yield replace(packet, capture_ms=capture_clock_ms())


async def play(track: MotionTrack, uplink: Uplink | WhipUplink, clock_s: Callable[[], float] = time.monotonic) -> None:
    """Send a track in a loop at its own pace. Each packet's capture time is its sending time. Runs until cancelled."""
    async for packet in packets(track, clock_s=clock_s):
        uplink.push(packet)
