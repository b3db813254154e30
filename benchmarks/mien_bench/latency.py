"""`mien bench latency`: the time that each stage takes, from the speaker's packet to the last packet of the picture.

The bench starts the whole system: each service in a separate process, and an embedded Redis. The speakers, and one
viewer of the first speaker, run in this process. Each frame carries a trace with the times of its stages. In addition
to the viewer, a second subscriber reads the bus, so that publishing and fan-out can be told apart. All times come from
one machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from queue import Queue

import click
import numpy as np
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket

from mien_client.api import MienClient, Session
from mien_client.demo import BUNDLED_AVATAR, speaking_session
from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK, capture_clock_ms
from mien_client.uplink import Uplink
from mien_client.viewer import Viewer
from mien_shared.bus.channels import VideoSubscription
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import EncodedFrame
from mien_shared.media.clock import from_90k
from mien_shared.media.frame_trace import FrameTrace, read_trace
from mien_shared.wire.track import MotionTrack

#: The stages in order. uplink: from the speaker's send to the gateway's receipt. wait: until the batch starts, plus
#: from the finished face to a free thread. device: the batch. publish: from the encoder to a subscriber of the bus.
#: fan_out: from that subscriber's read to the viewer's last packet of the picture.
STAGES = ("uplink", "wait", "device", "compose", "encode", "publish", "fan_out", "total")
_SETTLE_S = 3.0
_DECODER_QUEUE = "_RTCRtpReceiver__decoder_queue"
#: How many frames to remember that the subscriber has received and the viewer has not; the oldest are dropped.
_MOST_PENDING = 600


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Percentiles of one stage, in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """frames: number of frames measured at the viewer. tier: the first speaker's tier at the end."""

    speakers: int
    frames: int
    fps: float
    tier: str | None
    stages_ms: dict[str, StageFigures]


@dataclass(frozen=True, slots=True)
class _BusFrame:
    """A frame as the second subscriber received it. Times in Unix seconds."""

    trace: FrameTrace
    encoding_began_s: float
    read_s: float


class Watch:
    """Combines the times of each frame from speaker, bus and viewer. Times in Unix seconds."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []
        self._sent_s: dict[int, float] = {}
        self._bus_frames: dict[tuple[int, int], _BusFrame] = {}
        self._parts: list[bytes] = []

    def sent(self, capture_ms: int, at_s: float) -> None:
        """Record that the speaker sends a packet."""
        self._sent_s[capture_ms] = at_s

    def published(self, frame: EncodedFrame, at_s: float) -> None:
        """Record that the subscriber of the bus has read a frame."""
        trace = read_trace(frame.data)
        if trace is not None and not trace.is_stalled:
            self._bus_frames[trace.capture_ms, trace.sequence] = _BusFrame(trace, from_90k(frame.pts_90k), at_s)
            while len(self._bus_frames) > _MOST_PENDING:
                del self._bus_frames[next(iter(self._bus_frames))]

    def received(self, packet: RtpPacket) -> None:
        """Record a packet at the viewer. `_data` is Annex-B, as aiortc depacketised it; the marker ends a picture."""
        self._parts.append(getattr(packet, "_data", b""))
        if packet.marker:
            now_s, trace = time.time(), read_trace(b"".join(self._parts))
            self._parts.clear()
            if trace is not None and not trace.is_stalled:
                self._add(trace, now_s)

    def _add(self, trace: FrameTrace, received_s: float) -> None:
        bus = self._bus_frames.pop((trace.capture_ms, trace.sequence), None)
        sent_s = self._sent_s.pop(trace.capture_ms, None)
        if bus is None or sent_s is None:
            return
        wait_s, device_s, compose_s, encode_s = (
            us / 1e6 for us in (trace.uplink_wait_us, trace.face_us, trace.compose_us, trace.encode_us)
        )
        self.samples.append(
            {
                "uplink": bus.encoding_began_s - compose_s - device_s - wait_s - sent_s,
                "wait": wait_s,
                "device": device_s,
                "compose": compose_s,
                "encode": encode_s,
                "publish": bus.read_s - bus.encoding_began_s - encode_s,
                "fan_out": received_s - bus.read_s,
                "total": received_s - sent_s,
            }
        )


class _DiscardingQueue:
    """Replaces aiortc's queue of frames to decode and drops them, because a decoder takes a fifth of a core."""

    def __init__(self, queue: Queue[object]) -> None:
        self._queue = queue

    def put(self, task: object) -> None:
        if task is None:  # tells the decoder thread to end
            self._queue.put(None)


def tap(receiver: RTCRtpReceiver, take: Callable[[RtpPacket], None]) -> None:
    """Call `take` with every packet after aiortc has processed it."""
    setattr(receiver, _DECODER_QUEUE, _DiscardingQueue(getattr(receiver, _DECODER_QUEUE)))
    handle = receiver._handle_rtp_packet

    async def handle_and_show(packet: RtpPacket, arrival_time_ms: int) -> None:
        await handle(packet, arrival_time_ms)
        take(packet)

    receiver._handle_rtp_packet = handle_and_show


async def measure(seconds: float, speakers: int, backend: str) -> LatencyFigures:
    """Run the whole system and measure for `seconds`; raises the errors of the launcher and of the client."""
    with EmbeddedRedis() as server:
        options = StackOptions(
            gateway_port=0,
            signaling_port=0,
            redis_url=server.url,
            generator_env={"MIEN_FACE_BACKEND": backend, "MIEN_CAPACITY": str(speakers)},
        )
        async with AsyncExitStack() as contexts:
            stack = await contexts.enter_async_context(Stack(options))
            mien = await contexts.enter_async_context(MienClient(stack.url))
            redis = await contexts.enter_async_context(open_redis(server.url))
            called = [
                await contexts.enter_async_context(speaking_session(mien, BUNDLED_AVATAR)) for _ in range(speakers)
            ]
            first, watch = called[0][0], Watch()
            tasks = [
                asyncio.create_task(_speak(uplink, watch if session is first else None, number / speakers))
                for number, (session, uplink) in enumerate(called)
            ]
            tasks.append(asyncio.create_task(_read(VideoSubscription(redis, first.session_id), watch)))
            for task in tasks:
                contexts.callback(task.cancel)
            viewer = await contexts.enter_async_context(Viewer(first.whep_url, first.watch_token))
            tap(viewer.connection.peer.getReceivers()[0], watch.received)
            await asyncio.sleep(_SETTLE_S)
            watch.samples.clear()
            await asyncio.sleep(seconds)
            samples = list(watch.samples)
            tier = await _tier(mien, first)
    return LatencyFigures(speakers, len(samples), round(len(samples) / seconds, 2), tier, _stages(samples))


async def _speak(uplink: Uplink, watch: Watch | None, phase: float) -> None:
    """Send the demo's motion in a loop. phase: offset in frame intervals, because real cameras are not in step."""
    track = MotionTrack.load(DEMO_TRACK)
    begun_s = time.monotonic() + phase * track.interval_s
    for at_s, packet in track.looped():
        await asyncio.sleep(max(0.0, begun_s + at_s - time.monotonic()))
        capture_ms = capture_clock_ms()
        if watch is not None:
            watch.sent(capture_ms, time.time())
        uplink.push(replace(packet, capture_ms=capture_ms))


async def _read(subscription: VideoSubscription, watch: Watch) -> None:
    async for frame in subscription:
        watch.published(frame, time.time())


async def _tier(mien: MienClient, session: Session) -> str | None:
    stats = (await mien.session(session.session_id, session.token)).stats
    return stats.tier if stats else None


def _stages(samples: Sequence[dict[str, float]]) -> dict[str, StageFigures]:
    figures = {}
    for stage in STAGES:
        values_ms = [1000 * sample[stage] for sample in samples]
        p50, p99 = np.percentile(values_ms, [50, 99]) if values_ms else (float("nan"), float("nan"))
        figures[stage] = StageFigures(round(float(p50), 2), round(float(p99), 2))
    return figures


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="Seconds to measure.")
@click.option(
    "--speakers", default=1, show_default=True, help="Number of simultaneous speakers; only the first is measured."
)
@click.option(
    "--backend",
    "--engine",  # the former name, still accepted
    "backend",
    type=click.Choice(["auto", "onnx", "torch", "warp"]),
    default="auto",
    show_default=True,
    help="Backend that makes the faces. auto means onnx, or warp if the weights or onnxruntime are missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def latency(seconds: float, speakers: int, backend: str, as_json: bool) -> None:
    """Measure how long each stage of a frame takes in a running system."""
    figures = asyncio.run(measure(seconds, speakers, backend))
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    click.echo(f"{figures.frames} frames, {figures.fps} a second, {speakers} speakers, tier {figures.tier}")
    for name, stage in figures.stages_ms.items():
        click.echo(f"  {name:8s} p50 {stage.p50:7.2f} ms   p99 {stage.p99:7.2f} ms")
