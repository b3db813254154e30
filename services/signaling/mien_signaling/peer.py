"""One viewer's connection: the video and the voice that it is sent, and its reports."""

from __future__ import annotations

from collections.abc import Callable

from mien_shared.bus.messages import KeyframeReason, ViewerState
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_signaling import ice, passthrough, voice_passthrough
from mien_signaling.broadcast import Broadcast, ViewerFeed
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import Offer
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.retransmission import Ignored


class ViewerConnection(PeerSession):
    """A WHEP session. on_gone: called at most once, when the connection ends or does not come up."""

    def __init__(
        self,
        viewer_id: str,
        bearer: Principal | None,
        broadcast: Broadcast,
        ice_servers: list[IceServer],
        media_port: MediaPort | None,
        clock: Clock,
        metrics: SignalingMetrics,
        on_gone: Callable[[ViewerConnection, Gone], None],
    ) -> None:
        super().__init__(bearer, ice_servers, media_port, clock, metrics)
        self.viewer_id = viewer_id
        self.broadcast = broadcast
        self._on_gone = on_gone
        self._joined_at_ms = round(clock.unix_s() * 1000)
        self._loss: float | None = None
        self._rtt_s: float | None = None
        self._saw_frame = False
        self._feed = ViewerFeed(broadcast.limits)
        self._sections: Offer | None = None

    async def answer(self, offer: Offer) -> str:
        """aiortc's answer to the reduced offer, with our candidates. Raises UnreadableOffer or ClosedWhileAnswering."""
        self._sections = offer
        return await self._negotiated(offer)

    def state(self) -> ViewerState:
        """What an operator may know of this viewer."""
        return ViewerState(
            viewer_id=self.viewer_id,
            state="connected" if self.is_connected else "connecting",
            joined_at_ms=self._joined_at_ms,
            sent_bps=round(self.broadcast.sent_bps) if self.is_connected else 0,
            target_bps=self._feed.bitrate.target_bps,
            loss_ratio=None if self._loss is None else round(self._loss, 4),
            rtt_ms=None if self._rtt_s is None else round(self._rtt_s * 1000, 1),
        )

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self.broadcast.detach(self._feed)
        await super().close()

    # Reports of the viewer's receiver (passthrough.ReceiverFeedback)

    def on_keyframe_wanted(self) -> None:
        self._metrics.viewer_wants_keyframe()
        self.broadcast.want_keyframe(KeyframeReason.PLI)

    def on_nack(self, packets: int) -> None:
        self._metrics.viewer_nacked(packets)

    def on_nack_ignored(self, reason: Ignored, packets: int) -> None:
        self._metrics.nack_ignored(reason, packets)

    def on_sent_again(self) -> None:
        self._metrics.packet_sent_again()

    @property
    def stream_bps(self) -> float:
        return self.broadcast.sent_bps

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        self._metrics.viewer_reported(loss, rtt_s)
        self._loss = loss
        if rtt_s is not None:
            self._rtt_s = rtt_s
        self._feed.bitrate.on_loss(loss, self.broadcast.sent_bps, self._clock.monotonic_s())

    def on_remb(self, bitrate_bps: int) -> None:
        self._feed.bitrate.on_remb(bitrate_bps, self.broadcast.sent_bps)

    # The connection (PeerSession)

    def _add_sections(self) -> None:
        offer = self._sections
        assert offer is not None
        video = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        video.setCodecPreferences(passthrough.h264_preferences())
        passthrough.install(
            video, offer.format, self._next_frame, self, self._clock, by_capture=offer.voice is not None
        )
        if offer.voice is not None:
            voice = self._peer.addTransceiver(passthrough.PassthroughTrack("audio"), direction="sendonly")
            voice.setCodecPreferences(voice_passthrough.opus_preferences())
            voice_passthrough.install(voice, offer.voice, self.broadcast.voice.attach, self.broadcast.voice.detach)

    def _take_over(self) -> None:
        """Nothing: a viewer's reports come through its senders."""

    def _connected(self) -> None:
        self._metrics.viewer_connected(self._clock.monotonic_s() - self._started_s, ice.transport_of(self._peer))
        self.broadcast.attach(self._feed)

    def _gone(self, reason: Gone) -> None:
        self._on_gone(self, reason)

    async def _next_frame(self) -> PacketisedFrame:
        frame = await self._feed.next_frame()
        if not self._saw_frame:
            self._saw_frame = True
            self._metrics.first_frame(self._clock.monotonic_s() - self._started_s)
        self._metrics.frame_sent()
        return frame
