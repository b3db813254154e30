"""The whole system, running in separate processes, for the end-to-end tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from mien_client.api import MienClient, Session
from mien_client.demo import BUNDLED_AVATAR, speaking_session
from mien_client.launcher import Stack
from mien_client.recording import trace_of
from mien_client.speaking import DEMO_TRACK, play
from mien_client.uplink import Uplink
from mien_client.viewer import Viewer
from mien_client.whep import ReceivedFrame
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.media.frame_trace import FrameTrace
from mien_shared.wire.track import MotionTrack


@dataclass(frozen=True)
class Call:
    """One speaker's call: its session, its uplink, and the task that sends the demo's track."""

    session: Session
    uplink: Uplink
    speaker: asyncio.Task[None]


@dataclass(frozen=True)
class System:
    """The running system and its Redis."""

    stack: Stack
    redis: EmbeddedRedis

    @asynccontextmanager
    async def call(self) -> AsyncIterator[Call]:
        """A session with the bundled avatar and the demo's speaker."""
        async with (
            MienClient(self.stack.url) as mien,
            speaking_session(mien, BUNDLED_AVATAR) as (session, uplink),
        ):
            speaker = asyncio.create_task(play(MotionTrack.load(DEMO_TRACK), uplink))
            try:
                yield Call(session, uplink, speaker)
            finally:
                speaker.cancel()
                await asyncio.gather(speaker, return_exceptions=True)

    async def metric(self, service: str, name: str, **labels: str) -> float:
        """The value of a service's metric, summed over all labels that are not given. 0 if there is no such metric."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"{self.stack.service_url(service)}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def readiness(self, service: str) -> int:
        """The status of a service's /readyz."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"{self.stack.service_url(service)}/readyz")).status_code


async def watch_for(viewer: Viewer, seconds: float) -> list[ReceivedFrame]:
    """The frames that a viewer receives in this time, counted from its next frame."""
    got: list[ReceivedFrame] = []
    async with asyncio.timeout(seconds + 10):
        async for frame in viewer.frames():
            got.append(frame)
            if frame.received_unix_s - got[0].received_unix_s >= seconds:
                break
    return got


def traces(frames: list[ReceivedFrame]) -> list[FrameTrace]:
    """The traces of those frames that carry one."""
    found = [trace_of(frame.picture) for frame in frames]
    return [trace for trace in found if trace is not None]
