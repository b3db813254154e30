"""One viewer's peer connection, from the offer to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp

from mien_shared.bus.messages import KeyframeReason, ViewerState
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_signaling import ice, passthrough
from mien_signaling.broadcast import Broadcast, ViewerFeed
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import Offer, UnreadableOffer
from mien_signaling.retransmission import Ignored
from mien_signaling.sdp import MAX_CANDIDATES, TrickleFragment

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
#: The errors that aiortc raises for a wrong offer, depending on the operation that fails.
AIORTC_RAISES = (ValueError, IndexError, KeyError, AssertionError, AttributeError, TypeError)


class ClosedWhileAnswering(Exception):
    """The viewer was removed before its answer was complete: the service stops, or the session has ended."""


class Gone(StrEnum):
    """Why a viewer was removed."""

    LEFT = "left"
    CLOSED = "closed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    SESSION_ENDED = "session_ended"
    OPERATOR = "operator"  # an operator ended it
    EXPIRED = "expired"  # its token
    DEPARTED = "departed"  # its participant has left the room
    SHUTDOWN = "shutdown"


class ViewerConnection:
    """A WHEP session.

    bearer: who watches, None in an open demo. media_port: the port of all viewers, None if this one has its own port.
    on_gone: called at most once, when the connection ends or does not come up.
    """

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
        self.viewer_id = viewer_id
        self.bearer = bearer
        self.broadcast = broadcast
        self.is_connected = False
        self._offer: Offer | None = None
        self._media_port = media_port
        self._clock = clock
        self._metrics = metrics
        self._on_gone = on_gone
        self._started_s = clock.monotonic_s()
        self._joined_at_ms = round(clock.unix_s() * 1000)
        self._loss: float | None = None
        self._rtt_s: float | None = None
        self._saw_frame = False
        self._closing = False
        self._candidates_left = MAX_CANDIDATES
        self._feed = ViewerFeed(broadcast.limits)
        # An empty list, never None: for None, aiortc uses a public STUN server.
        servers = [RTCIceServer(server.urls, server.username, server.credential) for server in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._peer.on("connectionstatechange", self._connection_changed)
        self._deadline: asyncio.Task[None] | None = None

    async def answer(self, offer: Offer) -> str:
        """aiortc's answer to the reduced offer, with our candidates. Raises UnreadableOffer or ClosedWhileAnswering."""
        self._offer = offer
        try:
            answer = await self._negotiate(offer)
        except (InvalidStateError, *AIORTC_RAISES) as error:
            if self._closing or isinstance(error, InvalidStateError):
                raise ClosedWhileAnswering from error
            raise UnreadableOffer("the offer cannot be read") from error
        if self._closing:
            raise ClosedWhileAnswering
        return answer

    def expect_connection(self, timeout_s: float) -> None:
        """Begin the time in which the viewer must connect: call it when the answer is complete.

        A deadline that runs while a slow machine is still answering would close the connection under the answer.
        """
        if not self._closing and not self.is_connected:
            self._deadline = asyncio.create_task(self._expire(timeout_s), name="viewer deadline")

    def has_expired(self, now_unix_s: float) -> bool:
        """Whether the viewer's token has expired since it joined."""
        expires_unix_s = None if self.bearer is None else self.bearer.expires_unix_s
        return expires_unix_s is not None and now_unix_s > expires_unix_s

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

    def is_restart(self, fragment: TrickleFragment) -> bool:
        """Whether a fragment has credentials of another ICE session than the offer's."""
        return fragment.ufrag is not None and self._offer is not None and fragment.ufrag not in self._offer.ufrags

    async def add(self, fragment: TrickleFragment) -> None:
        """Add trickled candidates for our connection. Candidates beyond the limit and names (mDNS) are ignored.

        The end of candidates is ignored too: aiortc would fail as soon as its own checks have failed, but the viewer's
        checks may still arrive (RFC 8863).
        """
        for candidate in fragment.candidates:
            if self._offer is None or not self._offer.owns(candidate) or not candidate.has_address:
                continue
            if self._candidates_left == 0:
                return
            self._candidates_left -= 1
            remote = candidate_from_sdp(candidate.sdp)
            remote.sdpMLineIndex = 0  # aiortc has one section
            await self._peer.addIceCandidate(remote)

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self._closing = True
        self.is_connected = False
        self._cancel_deadline()
        self.broadcast.detach(self._feed)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._peer.close()
        except TimeoutError:
            logger.error("a viewer's connection did not close in time")
        except Exception:
            # aiortc raises this if an offer left the connection incomplete. The caller must free the rest, so go on.
            logger.exception("a viewer's connection failed to close")
        finally:
            ice.leave_media_port(self._peer)

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

    async def _negotiate(self, offer: Offer) -> str:
        transceiver = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        transceiver.setCodecPreferences(passthrough.h264_preferences())
        passthrough.install(transceiver, offer.format, self._next_frame, self, self._clock)
        await self._peer.setRemoteDescription(RTCSessionDescription(offer.reduced, "offer"))
        ice.end_consent_checks_with(self._peer)
        if self._media_port is not None:
            ice.use_media_port(self._peer, self._media_port, self._metrics)
        await self._peer.setLocalDescription()
        return str(self._peer.localDescription.sdp)

    async def _next_frame(self) -> PacketisedFrame:
        frame = await self._feed.next_frame()
        if not self._saw_frame:
            self._saw_frame = True
            self._metrics.first_frame(self._clock.monotonic_s() - self._started_s)
        self._metrics.frame_sent()
        return frame

    def _connection_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and not self._closing and not self.is_connected:
            self.is_connected = True
            self._cancel_deadline()
            self._metrics.viewer_connected(self._clock.monotonic_s() - self._started_s, ice.transport_of(self._peer))
            self.broadcast.attach(self._feed)
        elif state in {"failed", "closed"}:
            self._report_gone(Gone.FAILED if state == "failed" else Gone.CLOSED)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    async def _expire(self, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
        self._report_gone(Gone.TIMED_OUT)

    def _report_gone(self, reason: Gone) -> None:
        if not self._closing:
            self._closing = True
            self._on_gone(self, reason)
