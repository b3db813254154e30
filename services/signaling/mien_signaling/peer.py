"""One viewer's connection to one session: the video and the voice that it is sent."""

from __future__ import annotations

from collections.abc import Callable

from mien_shared.bus.messages import ViewerState
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_signaling import ice, passthrough, voice_passthrough
from mien_signaling.broadcast import Broadcast
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import Offer
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.picture_stream import PictureStream


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
        self._saw_frame = False
        self._picture = PictureStream(broadcast.limits, clock, metrics, self._sends_frame)
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
            target_bps=self._picture.target_bps,
            loss_ratio=None if self._picture.loss is None else round(self._picture.loss, 4),
            rtt_ms=None if self._picture.rtt_s is None else round(self._picture.rtt_s * 1000, 1),
        )

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self._picture.tune(None)
        await super().close()

    # The connection (PeerSession)

    def _add_sections(self) -> None:
        offer = self._sections
        assert offer is not None
        video = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        video.setCodecPreferences(passthrough.h264_preferences())
        by_capture = offer.voice is not None
        passthrough.install(video, offer.format, self._picture.next_frame, self._picture, self._clock, by_capture)
        if offer.voice is not None:
            voice = self._peer.addTransceiver(passthrough.PassthroughTrack("audio"), direction="sendonly")
            voice.setCodecPreferences(voice_passthrough.opus_preferences())
            voice_passthrough.install(voice, offer.voice, self.broadcast.voice.attach, self.broadcast.voice.detach)

    def _take_over(self) -> None:
        """Nothing: a viewer's reports come through its senders."""

    def _connected(self) -> None:
        self._metrics.viewer_connected(self._clock.monotonic_s() - self._started_s, ice.transport_of(self._peer))
        self._picture.tune(self.broadcast)

    def _gone(self, reason: Gone) -> None:
        self._on_gone(self, reason)

    def _sends_frame(self) -> None:
        if not self._saw_frame:
            self._saw_frame = True
            self._metrics.first_frame(self._clock.monotonic_s() - self._started_s)
