"""All viewers of sessions in this process, by id. Those of rooms are in room_audience.py."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import deque
from ipaddress import ip_address

from redis.asyncio import Redis

from mien_shared.bus.messages import ViewerState
from mien_shared.bus.rooms import Rooms
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_signaling.answer import Announcement, announced, answer_to
from mien_signaling.background import BackgroundTasks
from mien_signaling.broadcast import Broadcast
from mien_signaling.broadcasts import Broadcasts
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import Offer
from mien_signaling.participants import demand_participant
from mien_signaling.peer import ViewerConnection
from mien_signaling.peer_session import Gone
from mien_signaling.seats import Seats
from mien_signaling.settings import SignalingSettings

logger = logging.getLogger(__name__)

_DISCARD_PORT = 9
_EXPIRY_CHECK_S = 1.0
#: How soon a participant that was removed from its room sees nothing of it any more.
PARTICIPANTS_INTERVAL_S = 0.5
#: How many viewers that an operator ended are remembered. Their session URLs say why they were ended.
_ENDED_REMEMBERED = 1000


class Full(Exception):
    """This process, this session or this token has as many viewers as allowed; the text names which."""


class Audience:
    """Owns viewers. `aclose` ends all of them. media_port: None if each viewer has its own port."""

    def __init__(
        self,
        redis: Redis,
        broadcasts: Broadcasts,
        seats: Seats,
        settings: SignalingSettings,
        clock: Clock,
        metrics: SignalingMetrics,
        media_port: MediaPort | None = None,
    ) -> None:
        self._broadcasts = broadcasts
        self._seats = seats
        self._rooms = Rooms(redis)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._media_port = media_port
        self._viewers: dict[str, ViewerConnection] = {}
        self._ended_viewers: deque[tuple[str, str]] = deque(maxlen=_ENDED_REMEMBERED)
        self._tasks = BackgroundTasks("removing a viewer failed")
        self._announcement = announcement_of(settings)
        broadcasts.on_ended(self._end)
        seats.also_count(lambda: len(self._viewers))

    async def join(self, session_id: str, offer: Offer, bearer: Principal | None = None) -> tuple[str, str]:
        """Add a viewer to a session; returns its unguessable id and our answer. bearer: None in an open demo.

        If this process already watches the session, Redis is asked only for a participant. Raises UnknownSession,
        NoPublication, Full, UnreadableOffer, ClosedWhileAnswering, Problem 403 or 404 for a participant, or an error
        of Redis.
        """
        if limit := self._limit_reached(session_id, bearer):
            raise Full(f"{limit} has as many viewers as allowed")
        broadcast = await self._broadcasts.use(session_id)
        try:
            await demand_participant(self._rooms, broadcast.session, bearer, Grant.WATCH)
            if limit := self._limit_reached(session_id, bearer):
                raise Full(f"{limit} has as many viewers as allowed")
        except BaseException:
            self._broadcasts.done(broadcast)
            raise
        viewer = ViewerConnection(
            secrets.token_urlsafe(24),
            bearer,
            broadcast,
            self._settings.ice_servers,
            self._media_port,
            self._clock,
            self._metrics,
            self._gone,
        )
        self._viewers[viewer.viewer_id] = viewer
        try:
            accepted = await viewer.answer(offer)
        except BaseException:
            await self.remove(viewer, Gone.REFUSED)
            raise
        viewer.expect_connection(self._settings.connect_timeout_s)
        if self._announcement is not None:
            accepted = announced(accepted, self._announcement)
        return viewer.viewer_id, answer_to(offer, accepted)

    async def remove_departed(self) -> None:
        """Remove the viewers of participants that have left their room; one step of a loop. Raises Redis' errors."""
        of_rooms = [
            (viewer, viewer.bearer.room, viewer.bearer.scope or "")
            for viewer in self._viewers.values()
            if viewer.bearer is not None and viewer.bearer.room is not None
        ]
        left = await self._rooms.has_left([(room_id, participant_id) for _, room_id, participant_id in of_rooms])
        gone = [viewer for (viewer, _, _), has_left in zip(of_rooms, left, strict=True) if has_left]
        await asyncio.gather(*(self.remove(viewer, Gone.DEPARTED) for viewer in gone))

    def find(self, session_id: str, viewer_id: str) -> ViewerConnection | None:
        viewer = self._viewers.get(viewer_id)
        return viewer if viewer is not None and viewer.broadcast.session.session_id == session_id else None

    async def remove(self, viewer: ViewerConnection, reason: Gone) -> None:
        """Remove a viewer; does nothing if it was removed before."""
        if self._viewers.pop(viewer.viewer_id, None) is None:
            return
        self._metrics.viewer_gone(reason)
        await viewer.close()
        self._broadcasts.done(viewer.broadcast)

    def roster(self) -> dict[str, list[ViewerState]]:
        """The viewers of this process by session."""
        found: dict[str, list[ViewerState]] = {}
        for viewer in self._viewers.values():
            found.setdefault(viewer.broadcast.session.session_id, []).append(viewer.state())
        return found

    def end(self, session_id: str, viewer_id: str) -> None:
        """End a viewer for an operator; does nothing if this process does not have it."""
        if viewer := self.find(session_id, viewer_id):
            self._ended_viewers.append((session_id, viewer_id))
            self._gone(viewer, Gone.OPERATOR)

    def was_ended(self, session_id: str, viewer_id: str) -> bool:
        """Whether an operator ended this viewer, among the newest thousand."""
        return (session_id, viewer_id) in self._ended_viewers

    async def remove_expired(self) -> None:
        """Remove viewers whose token has expired, once a second until cancelled."""
        while True:
            now_unix_s = self._clock.unix_s()
            expired = [viewer for viewer in self._viewers.values() if viewer.has_expired(now_unix_s)]
            await asyncio.gather(*(self.remove(viewer, Gone.EXPIRED) for viewer in expired))
            await self._clock.sleep(_EXPIRY_CHECK_S)

    async def aclose(self) -> None:
        """Close every connection, so that viewers notice it at once, and end every task."""
        await asyncio.gather(*(self.remove(viewer, Gone.SHUTDOWN) for viewer in list(self._viewers.values())))
        await self._tasks.cancel()

    def _limit_reached(self, session_id: str, bearer: Principal | None) -> str | None:
        """Which limit leaves no room for another viewer, None if there is room."""
        settings = self._settings
        if self._seats.are_taken:
            return "this service"
        if len(self._of_session(session_id)) >= settings.max_viewers_per_session:
            return "this session"
        if bearer is not None:
            of_token = sum(
                viewer.bearer is not None and viewer.bearer.name == bearer.name for viewer in self._viewers.values()
            )
            if of_token >= settings.max_viewers_per_token:
                return "this token"
        return None

    @property
    def connected(self) -> int:
        return sum(viewer.is_connected for viewer in self._viewers.values())

    @property
    def connecting(self) -> int:
        return len(self._viewers) - self.connected

    def _of_session(self, session_id: str) -> list[ViewerConnection]:
        return [viewer for viewer in self._viewers.values() if viewer.broadcast.session.session_id == session_id]

    async def _end(self, broadcast: Broadcast) -> None:
        """Remove the viewers of a broadcast whose session has ended."""
        viewers = [viewer for viewer in self._viewers.values() if viewer.broadcast is broadcast]
        await asyncio.gather(*(self.remove(viewer, Gone.SESSION_ENDED) for viewer in viewers))

    def _gone(self, viewer: ViewerConnection, reason: Gone) -> None:
        self._tasks.spawn(self.remove(viewer, reason))


def announcement_of(settings: SignalingSettings) -> Announcement | None:
    """The address to announce by the settings, None for the host's own addresses.

    The NAT forwards to the address from which this host would send to the public address. A connected UDP socket knows
    that address without sending anything. (A container may be on several networks, and only one is published.)
    """
    if settings.public_ip is None:
        return None
    family = socket.AF_INET if settings.public_ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(settings.public_ip), _DISCARD_PORT))
        except OSError:
            logger.warning("no route to MIEN_PUBLIC_IP: all host candidates are announced with it")
            return Announcement(settings.public_ip)
        local = ip_address(probe.getsockname()[0])
    # Loopback is not a candidate to which a NAT could forward.
    return Announcement(settings.public_ip, None if local.is_loopback else local)
