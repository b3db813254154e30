"""One stream of pictures to one viewer: the frames of a broadcast, and what the viewer's receiver reports of them.

A stream may be tuned to another broadcast. The receiver sees one continuous stream: what follows begins with an IDR,
and its timestamps go on after the last one (`slot_timeline.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mien_shared.bus.messages import KeyframeReason
from mien_shared.clock import Clock
from mien_signaling.broadcast import Broadcast, ViewerFeed
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.feedback import BitrateLimits, ViewerBitrate
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.retransmission import Ignored
from mien_signaling.slot_timeline import PICTURE, SlotClock, StreamTimeline


class PictureStream:
    """It is a passthrough.ReceiverFeedback.

    on_frame: called for each frame that is about to be sent. slot_clock: of the slot that the stream is for; None for
    one that is never tuned again. forget_time: makes the sender name no time until it gets one. total_bps: of all
    streams of the connection, because a receiver estimates one bitrate for them together.
    """

    def __init__(
        self,
        limits: BitrateLimits,
        clock: Clock,
        metrics: SignalingMetrics,
        on_frame: Callable[[], None] = lambda: None,
        slot_clock: SlotClock | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._on_frame = on_frame
        self._slot_clock = slot_clock
        self._ready = asyncio.Event()
        self._bitrate = ViewerBitrate(limits)
        self._broadcast: Broadcast | None = None
        self._feed: ViewerFeed | None = None
        self._timeline = StreamTimeline(PICTURE.clock_hz)
        self._is_new = False
        self.forget_time: Callable[[], None] = lambda: None
        self.total_bps: Callable[[], float] = lambda: self.stream_bps
        self.loss: float | None = None
        self.rtt_s: float | None = None

    @property
    def target_bps(self) -> int:
        return self._bitrate.target_bps

    def tune(self, broadcast: Broadcast | None) -> None:
        """Send the frames of this broadcast, from its next IDR on, or none. What waits of the last one is dropped."""
        if broadcast is self._broadcast:
            return
        if self._broadcast is not None and self._feed is not None:
            self._broadcast.detach(self._feed)
        self._broadcast, self._feed = broadcast, None
        if broadcast is not None:
            self._is_new = True
            self._feed = ViewerFeed(self._bitrate, self._ready)
            broadcast.attach(self._feed)

    async def next_frame(self) -> PacketisedFrame:
        """The oldest frame not yet sent."""
        while self._feed is None or (frame := self._feed.queue.pop()) is None:
            self._ready.clear()
            await self._ready.wait()
        self._on_frame()
        self._metrics.frame_sent()
        return frame if self._slot_clock is None else self._placed(frame, self._slot_clock)

    def _placed(self, frame: PacketisedFrame, slot_clock: SlotClock) -> PacketisedFrame:
        now_s = self._clock.monotonic_s()
        if self._is_new:
            self._is_new = False
            self._timeline.begin()
            self.forget_time()
        timestamp = self._timeline.place(frame.pts_90k, now_s)
        capture_s = None if frame.capture_s is None else slot_clock.reported_s(PICTURE, frame.capture_s, now_s)
        return replace(frame, pts_90k=timestamp, capture_s=capture_s)

    # Reports of the viewer's receiver (passthrough.ReceiverFeedback)

    def on_keyframe_wanted(self) -> None:
        self._metrics.viewer_wants_keyframe()
        if self._broadcast is not None:
            self._broadcast.want_keyframe(KeyframeReason.PLI)

    def on_nack(self, packets: int) -> None:
        self._metrics.viewer_nacked(packets)

    def on_nack_ignored(self, reason: Ignored, packets: int) -> None:
        self._metrics.nack_ignored(reason, packets)

    def on_sent_again(self) -> None:
        self._metrics.packet_sent_again()

    @property
    def stream_bps(self) -> float:
        return 0.0 if self._broadcast is None else self._broadcast.sent_bps

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        self._metrics.viewer_reported(loss, rtt_s)
        self.loss = loss
        if rtt_s is not None:
            self.rtt_s = rtt_s
        if self._broadcast is not None:
            self._bitrate.on_loss(loss, self._broadcast.sent_bps, self._clock.monotonic_s())

    def on_remb(self, bitrate_bps: int) -> None:
        if self._broadcast is not None:
            sent_bps, total_bps = self._broadcast.sent_bps, self.total_bps()
            share_bps = round(bitrate_bps * sent_bps / total_bps) if total_bps > 0 else bitrate_bps
            self._bitrate.on_remb(share_bps, sent_bps)
