"""What a viewer's and a speaker's connection have in common: a peer connection from the offer to its end."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Protocol

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp

from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_signaling import ice
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer_parts import UnreadableOffer
from mien_signaling.sdp import MAX_CANDIDATES, IceCandidate, TrickleFragment
from mien_signaling.speaker_transport import guard_receive_loop

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
#: The errors that aiortc raises for a wrong offer, depending on the operation that fails.
AIORTC_RAISES = (ValueError, IndexError, KeyError, AssertionError, AttributeError, TypeError)


class ClosedWhileAnswering(Exception):
    """The connection was removed before its answer was complete: the service stops, or the session has ended."""


class Gone(StrEnum):
    """Why a viewer or a speaker was removed."""

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
    REPLACED = "replaced"  # by a newer uplink of its session
    ABUSIVE = "abusive"  # most of what it sent was refused


class ReducedOffer(Protocol):
    """A checked offer, as offer.py and speaker_offer.py make it."""

    @property
    def ufrags(self) -> frozenset[str]: ...

    @property
    def reduced(self) -> str: ...

    def owns(self, candidate: IceCandidate) -> bool: ...


class PeerSession(ABC):
    """A session of WHEP or WHIP. bearer: who holds it, None in an open demo. media_port: None for a separate port."""

    def __init__(
        self,
        bearer: Principal | None,
        ice_servers: list[IceServer],
        media_port: MediaPort | None,
        clock: Clock,
        metrics: SignalingMetrics,
    ) -> None:
        self.bearer = bearer
        self.is_connected = False
        self._offer: ReducedOffer | None = None
        self._media_port = media_port
        self._clock = clock
        self._metrics = metrics
        self._started_s = clock.monotonic_s()
        self._closing = False
        self._candidates_left = MAX_CANDIDATES
        # An empty list, never None: for None, aiortc uses a public STUN server. One transport for everything: without
        # max-bundle, aiortc leaves the second section on a transport that it has discarded, and sends nothing there.
        servers = [RTCIceServer(server.urls, server.username, server.credential) for server in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._peer.on("connectionstatechange", self._connection_changed)
        self._deadline: asyncio.Task[None] | None = None

    @abstractmethod
    def _add_sections(self) -> None:
        """Before aiortc reads the offer: add what it must answer."""

    @abstractmethod
    def _take_over(self) -> None:
        """After aiortc read the offer, when all transports exist and none has started."""

    @abstractmethod
    def _connected(self) -> None:
        """The connection is up, for the first time."""

    @abstractmethod
    def _gone(self, reason: Gone) -> None:
        """The connection has ended, or did not come up; called at most once."""

    async def _negotiated(self, offer: ReducedOffer) -> str:
        """aiortc's answer to the reduced offer, with our candidates. Raises UnreadableOffer or ClosedWhileAnswering."""
        self._offer = offer
        try:
            self._add_sections()
            await self._peer.setRemoteDescription(RTCSessionDescription(offer.reduced, "offer"))
            ice.end_consent_checks_with(self._peer)
            guard_receive_loop(self._peer, self._metrics.unreadable_datagram)
            if self._media_port is not None:
                ice.use_media_port(self._peer, self._media_port, self._metrics)
            self._take_over()
            await self._peer.setLocalDescription()
            answer = str(self._peer.localDescription.sdp)
        except (InvalidStateError, *AIORTC_RAISES) as error:
            if self._closing or isinstance(error, InvalidStateError):
                raise ClosedWhileAnswering from error
            raise UnreadableOffer("the offer cannot be read") from error
        if self._closing:
            raise ClosedWhileAnswering
        return answer

    async def _negotiated_again(self, offer: ReducedOffer) -> str:
        """aiortc's answer to another offer on the live connection, which has more sections than the last one.

        Raises UnreadableOffer or ClosedWhileAnswering; after the first, the connection can no longer be used.
        """
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(offer.reduced, "offer"))
            await self._peer.setLocalDescription()
            answer = str(self._peer.localDescription.sdp)
        except (InvalidStateError, *AIORTC_RAISES) as error:
            if self._closing or isinstance(error, InvalidStateError):
                raise ClosedWhileAnswering from error
            raise UnreadableOffer("the offer cannot be read") from error
        if self._closing:
            raise ClosedWhileAnswering
        self._offer = offer
        return answer

    def expect_connection(self, timeout_s: float) -> None:
        """Begin the time in which the other side must connect: call it when the answer is complete.

        A deadline that runs while a slow machine is still answering would close the connection under the answer.
        """
        if not self._closing and not self.is_connected:
            self._deadline = asyncio.create_task(self._expire(timeout_s), name="connection deadline")

    def has_expired(self, now_unix_s: float) -> bool:
        """Whether the bearer's token has expired since it joined."""
        expires_unix_s = None if self.bearer is None else self.bearer.expires_unix_s
        return expires_unix_s is not None and now_unix_s > expires_unix_s

    def is_restart(self, fragment: TrickleFragment) -> bool:
        """Whether a fragment has credentials of another ICE session than the offer's."""
        return fragment.ufrag is not None and self._offer is not None and fragment.ufrag not in self._offer.ufrags

    async def add(self, fragment: TrickleFragment) -> None:
        """Add trickled candidates for our connection. Candidates beyond the limit and names (mDNS) are ignored.

        The end of candidates is ignored too: aiortc would fail as soon as its own checks have failed, but the other
        side's checks may still arrive (RFC 8863).
        """
        for candidate in fragment.candidates:
            if self._offer is None or not self._offer.owns(candidate) or not candidate.has_address:
                continue
            if self._candidates_left == 0:
                return
            self._candidates_left -= 1
            remote = candidate_from_sdp(candidate.sdp)
            remote.sdpMLineIndex = 0  # all of aiortc's sections share one transport
            await self._peer.addIceCandidate(remote)

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self._closing = True
        self.is_connected = False
        self._cancel_deadline()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._peer.close()
        except TimeoutError:
            logger.error("a connection did not close in time")
        except Exception:
            # aiortc raises this if an offer left the connection incomplete. The caller must free the rest, so go on.
            logger.exception("a connection failed to close")
        finally:
            ice.leave_media_port(self._peer)

    def _connection_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and not self._closing and not self.is_connected:
            self.is_connected = True
            self._cancel_deadline()
            self._connected()
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
            self._gone(reason)
