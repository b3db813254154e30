"""One watched session: one subscription to its video for all viewers, and their requests to the generator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis

from mien_shared.bus.channels import VideoSubscription, send_control
from mien_shared.bus.messages import EncodedFrame, KeyframeReason, RequestKeyframe, SessionRecord, SetBitrate
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, Registry
from mien_shared.clock import Clock
from mien_shared.media.clock import from_90k
from mien_shared.supervisor import keep_trying
from mien_signaling.fanout import Fanout, RunFence, ViewerQueue
from mien_signaling.feedback import (
    BITRATE_INTERVAL_S,
    KEYFRAME_POLL_S,
    BitrateLimits,
    KeyframeRequests,
    SentRate,
    SessionBitrate,
    ViewerBitrate,
    session_target_bps,
)
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.rtp_h264 import NotAnnexB
from mien_signaling.voice_broadcast import VoiceBroadcast

logger = logging.getLogger(__name__)


class ViewerFeed:
    """One stream of pictures in the fan-out: its queue and its bitrate. ready: set when a frame is queued."""

    def __init__(self, bitrate: ViewerBitrate, ready: asyncio.Event) -> None:
        self.queue = ViewerQueue(ready.set)
        self.bitrate = bitrate


class Broadcast:
    """Runs from `start` to `aclose`. on_ended: called, maybe more than once, if the session ends or this fails."""

    def __init__(
        self,
        session: SessionRecord,
        redis: Redis,
        limits: BitrateLimits,
        clock: Clock,
        metrics: SignalingMetrics,
        on_ended: Callable[[Broadcast], None],
    ) -> None:
        self.session = session
        self.limits = limits
        self._redis = redis
        self._registry = Registry(redis)
        self._clock = clock
        self._metrics = metrics
        self._on_ended = on_ended
        self._subscription = VideoSubscription(redis, session.session_id)
        self._fence = RunFence()
        self._fanout = Fanout()
        self._feeds: list[ViewerFeed] = []
        self._keyframes = KeyframeRequests()
        self._keyframe_wanted = asyncio.Event()
        self._bitrate = SessionBitrate(limits.start_bps)
        self._sent_rate = SentRate()
        self._encoder_run: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.voice = VoiceBroadcast(session.session_id, redis, clock, metrics)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="broadcast")
        self._task.add_done_callback(self._task_done)

    async def aclose(self) -> None:
        """End the subscriptions. The viewers are not notified."""
        await self.voice.aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def attach(self, feed: ViewerFeed) -> None:
        """Add a viewer and request an IDR. The viewer gets frames from the next IDR on."""
        self._fanout.add(feed.queue)
        self._feeds.append(feed)
        self.want_keyframe(KeyframeReason.JOIN)

    def detach(self, feed: ViewerFeed) -> None:
        """Remove a viewer; does nothing if it is not attached."""
        self._fanout.remove(feed.queue)
        if feed in self._feeds:
            self._feeds.remove(feed)

    @property
    def sent_bps(self) -> float:
        """The rate that each viewer is sent, bits per second without headers; 0 while unknown."""
        return self._sent_rate.bps()

    def want_keyframe(self, reason: KeyframeReason) -> None:
        """Request an IDR from the session's generator soon, combined with other requests."""
        self._keyframes.want(reason)
        self._keyframe_wanted.set()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, step, pause_s in (
                ("video", self._fan_out, 0.0),
                ("keyframes", self._request_keyframes, 0.0),
                ("bitrate", self._set_bitrate, BITRATE_INTERVAL_S),
                ("keep alive", self._keep_alive, KEEP_ALIVE_INTERVAL_S),
            ):
                group.create_task(keep_trying(name, self._clock, self._metrics, step, pause_s), name=name)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            logger.error("a broadcast failed", exc_info=task.exception())
            self._on_ended(self)

    async def _fan_out(self) -> None:
        for frame in await self._subscription.read():
            self._push(frame)

    def _push(self, frame: EncodedFrame) -> None:
        if not self._fence.admits(frame, self._clock.monotonic_s()):
            self._metrics.retired_frame()
            return
        self._encoder_run = frame.run
        self._metrics.channel_lag("video", self._clock.unix_s() - from_90k(frame.pts_90k))
        self._sent_rate.add(frame.pts_90k, len(frame.data))
        try:
            report = self._fanout.push(frame, self.voice.on_frame(frame))
        except NotAnnexB:
            self._metrics.bad_frame()
            return
        self._metrics.frame_fanned_out(report)
        if frame.is_idr:
            self._keyframes.answered()
        if report.wants_idr is not None:
            self.want_keyframe(report.wants_idr)

    async def _request_keyframes(self) -> None:
        reason = await self._due_keyframe()
        if owner := await self._registry.owner(self.session.session_id):
            await send_control(self._redis, owner, RequestKeyframe(session_id=self.session.session_id, reason=reason))
            self._metrics.keyframe_requested(reason)
        self._keyframes.sent(self._clock.monotonic_s())

    async def _due_keyframe(self) -> KeyframeReason:
        while True:
            await self._keyframe_wanted.wait()
            reason = self._keyframes.pending
            wait_s = self._keyframes.due_in_s(self._clock.monotonic_s())
            if reason is None:
                self._keyframe_wanted.clear()
            elif wait_s <= 0:
                return reason
            else:
                await self._clock.sleep(min(wait_s, KEYFRAME_POLL_S))

    async def _set_bitrate(self) -> None:
        target_bps, run = await self._due_bitrate()
        if owner := await self._registry.owner(self.session.session_id):
            await send_control(
                self._redis, owner, SetBitrate(session_id=self.session.session_id, bitrate_bps=target_bps)
            )
            self._metrics.bitrate_set(target_bps)
            self._bitrate.sent(target_bps, run, self._clock.monotonic_s())

    async def _due_bitrate(self) -> tuple[int, str | None]:
        """Wait for a target that should be sent; returns it and the encoder run that it is for."""
        while True:
            now_s, run = self._clock.monotonic_s(), self._encoder_run
            wanted_bps = session_target_bps(feed.bitrate.target_bps for feed in self._feeds)
            if wanted_bps is not None:
                target_bps = self._bitrate.to_send(wanted_bps, run, now_s)
                if target_bps is not None:
                    return target_bps, run
            await self._clock.sleep(BITRATE_INTERVAL_S)

    async def _keep_alive(self) -> None:
        if kept := await self._registry.keep_alive(self.session):
            self.session = kept
        else:
            self._on_ended(self)
