"""One viewer's peer connection, from the offer to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.sdp import candidate_from_sdp

from mien_shared.bus.messages import KeyframeReason
from mien_shared.clock import Clock
from mien_shared.settings import IceServer
from mien_signaling import passthrough
from mien_signaling.broadcast import Broadcast, ViewerFeed
from mien_signaling.fanout import PacketisedFrame
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.sdp import MAX_CANDIDATES, Offer, TrickleFragment, UnacceptableOffer, UnreadableOffer

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
#: The errors that aiortc raises for a wrong offer, depending on the operation that fails.
AIORTC_RAISES = (ValueError, IndexError, KeyError, AssertionError, AttributeError, TypeError)


class Gone(StrEnum):
    """Why a viewer was removed."""

    LEFT = "left"
    CLOSED = "closed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    SESSION_ENDED = "session_ended"
    SHUTDOWN = "shutdown"


class ViewerConnection:
    """A WHEP session. on_gone: called at most once, when the connection ends or fails to connect."""

    def __init__(
        self,
        viewer_id: str,
        broadcast: Broadcast,
        ice_servers: list[IceServer],
        connect_timeout_s: float,
        clock: Clock,
        metrics: SignalingMetrics,
        on_gone: Callable[[ViewerConnection, Gone], None],
    ) -> None:
        self.viewer_id = viewer_id
        self.broadcast = broadcast
        self.is_connected = False
        self.ufrag = ""
        self._clock = clock
        self._metrics = metrics
        self._on_gone = on_gone
        self._started_s = clock.monotonic_s()
        self._saw_frame = False
        self._closing = False
        self._candidates_left = MAX_CANDIDATES
        self._feed = ViewerFeed(broadcast.limits)
        # An empty list, never None: for None, aiortc uses a public STUN server.
        servers = [RTCIceServer(server.urls, server.username, server.credential) for server in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._peer.on("connectionstatechange", self._connection_changed)
        self._deadline = asyncio.create_task(self._expire(connect_timeout_s), name="viewer deadline")

    async def answer(self, offer: Offer) -> str:
        """The SDP answer with all our candidates. Raises UnreadableOffer or UnacceptableOffer."""
        self.ufrag = offer.ufrag
        transceiver = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        transceiver.setCodecPreferences(passthrough.h264_preferences())
        passthrough.install(transceiver.sender, self._next_frame, self)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
            passthrough.end_consent_checks_with(self._peer)
            await self._peer.setLocalDescription()
        except OperationError as error:
            raise UnacceptableOffer(
                "the offer has no codec in common with us: H264, packetization-mode 1, baseline"
            ) from error
        except AIORTC_RAISES as error:
            raise UnreadableOffer("the offer cannot be read") from error
        except RuntimeError as error:
            if isinstance(error.__cause__, StopIteration):  # raised by its parser inside a coroutine (PEP 479)
                raise UnreadableOffer("the offer cannot be read") from error
            raise
        return str(self._peer.localDescription.sdp)

    async def add(self, fragment: TrickleFragment) -> None:
        """Add trickled candidates. Candidates beyond the limit and mDNS names are ignored."""
        for candidate in fragment.candidates:
            if candidate.is_mdns or self._candidates_left == 0:
                continue
            self._candidates_left -= 1
            remote = candidate_from_sdp(candidate.sdp)
            remote.sdpMid, remote.sdpMLineIndex = candidate.mid, candidate.mline_index
            await self._peer.addIceCandidate(remote)
        if fragment.end_of_candidates:
            await self._peer.addIceCandidate(None)

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self._closing = True
        self.is_connected = False
        self._deadline.cancel()
        self.broadcast.detach(self._feed)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._peer.close()
        except TimeoutError:
            logger.error("a viewer's connection did not close in time")
        except Exception:
            # aiortc raises this if an offer left the connection incomplete. The caller must free the rest, so go on.
            logger.exception("a viewer's connection failed to close")

    # Reports of the viewer's receiver (passthrough.ReceiverFeedback)

    def on_keyframe_wanted(self) -> None:
        self._metrics.viewer_wants_keyframe()
        self.broadcast.want_keyframe(KeyframeReason.PLI)

    def on_nack(self, packets: int) -> None:
        self._metrics.viewer_nacked(packets)

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        self._metrics.viewer_reported(loss, rtt_s)
        self._feed.bitrate.on_loss(loss, self.broadcast.sent_bps, self._clock.monotonic_s())

    def on_remb(self, bitrate_bps: int) -> None:
        self._feed.bitrate.on_remb(bitrate_bps, self.broadcast.sent_bps)

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
            self._deadline.cancel()
            self._metrics.viewer_connected(self._clock.monotonic_s() - self._started_s)
            self.broadcast.attach(self._feed)
        elif state in {"failed", "closed"}:
            self._report_gone(Gone.FAILED if state == "failed" else Gone.CLOSED)

    async def _expire(self, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
        self._report_gone(Gone.TIMED_OUT)

    def _report_gone(self, reason: Gone) -> None:
        if not self._closing:
            self._closing = True
            self._on_gone(self, reason)
