"""One watched session's voice: one subscription for all its viewers, held back so that lips and voice agree.

It runs only while a viewer takes voice. A packet costs a viewer no queue and no task: when it is due, it is sent to all
viewers one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

from redis.asyncio import Redis

from mien_shared.bus.messages import EncodedFrame
from mien_shared.bus.voice import VoicePacket, VoiceSubscription
from mien_shared.clock import Clock
from mien_shared.media.frame_trace import TraceError, read_trace
from mien_shared.supervisor import keep_trying
from mien_signaling.lipsync import LipSync
from mien_signaling.metrics import SignalingMetrics, VoiceDropped
from mien_signaling.voice_timeline import TimedVoice, VoiceTimeline

logger = logging.getLogger(__name__)

#: Most packets that are held back: the longest hold of 0.4 s at 100 packets a second, and a burst after a stall.
MAX_HELD_PACKETS = 80


class VoiceTaker(Protocol):
    """Gets the packets of a session: a viewer's sender, or all that a room sends of it."""

    async def send(self, voice: TimedVoice) -> int:
        """Send one packet; returns to how many viewers. Raises ConnectionError."""


class VoiceBroadcast:
    """Ends with `aclose`."""

    def __init__(self, session_id: str, redis: Redis, clock: Clock, metrics: SignalingMetrics) -> None:
        self._subscription = VoiceSubscription(
            redis, session_id, lambda: metrics.voice_dropped(VoiceDropped.UNREADABLE)
        )
        self._clock = clock
        self._metrics = metrics
        self._timeline = VoiceTimeline()
        self._lips = LipSync()
        self._senders: list[VoiceTaker] = []
        self._held: deque[tuple[float, TimedVoice]] = deque()
        self._gathered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def attach(self, sender: VoiceTaker) -> None:
        """Send a taker the packets from now on."""
        self._senders.append(sender)
        if self._task is None:
            self._subscription.skip()  # what was said while nobody listened is old
            self._task = asyncio.create_task(self._run(), name="voice broadcast")
            self._task.add_done_callback(self._task_done)

    def detach(self, sender: VoiceTaker) -> None:
        """Remove a taker; does nothing if it is not attached."""
        if sender in self._senders:
            self._senders.remove(sender)
        if not self._senders and self._task is not None:
            self._task.cancel()
            self._task = None
            self._held.clear()

    async def aclose(self) -> None:
        self._senders.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def on_frame(self, frame: EncodedFrame) -> float | None:
        """Note a frame of the session; returns when its motion was recorded, None if not known or not needed."""
        if not self._senders:
            return None
        try:
            trace = read_trace(frame.data)
        except TraceError:
            trace = None
        self._lips.on_frame(trace, frame.pts_90k, self._clock.monotonic_s(), self._clock.unix_s())
        return self._lips.picture_capture_s(frame.pts_90k)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, step in (("voice", self._gather), ("voice release", self._release)):
                group.create_task(keep_trying(name, self._clock, self._metrics, step, 0.0), name=name)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            logger.error("a voice broadcast failed", exc_info=task.exception())

    async def _gather(self) -> None:
        for packet in await self._subscription.read():
            self._hold(packet)

    def _hold(self, packet: VoicePacket) -> None:
        now_s, unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        capture_s = None if packet.capture_us is None else packet.capture_us / 1e6
        hold_s = self._lips.hold(capture_s, now_s, unix_s)
        timed = self._timeline.place(packet, now_s + hold_s)
        if timed is None:
            self._metrics.voice_dropped(VoiceDropped.RETIRED)
            return
        if timed.capture_s is not None and not self._lips.is_one_clock(timed.capture_s, unix_s):
            timed = timed.without_capture()  # until there is a picture, or the clock is right, its reports name no time
        if len(self._held) >= MAX_HELD_PACKETS:
            self._held.popleft()
            self._metrics.voice_dropped(VoiceDropped.OVERFLOW)
        self._metrics.voice_held(hold_s)
        self._held.append((now_s + hold_s, timed))
        self._gathered.set()

    async def _release(self) -> None:
        await self._gathered.wait()
        if not self._held:
            self._gathered.clear()
            return
        wait_s = self._held[0][0] - self._clock.monotonic_s()
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        if self._held:
            await self._send(self._held.popleft()[1])

    async def _send(self, voice: TimedVoice) -> None:
        sent = 0
        for sender in list(self._senders):
            try:
                sent += await sender.send(voice)
            except ConnectionError:
                self._metrics.voice_dropped(VoiceDropped.CLOSED)
            except Exception:  # the boundary of one viewer: the others get the packet
                logger.exception("voice could not be sent to a viewer")
                self._metrics.voice_dropped(VoiceDropped.CLOSED)
        self._metrics.voice_sent(sent)
