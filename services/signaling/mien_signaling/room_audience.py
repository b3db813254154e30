"""All connections by which participants watch their rooms in this process, and what is known of these rooms.

A participant has one such connection, on all signaling services together: the newest one. It claims the participant's
slots in the room's live state, and the older one is refused there when it renews them.

Ten times a second one command asks for the versions of all rooms, and only the rooms that have changed are read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping

from redis.asyncio import Redis

from mien_shared.bus.live_rooms import LiveChange, LiveRooms
from mien_shared.bus.messages import ViewerState
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_shared.bus.room_messages import ParticipantRecord
from mien_shared.bus.rooms import RoomMarks, Rooms
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_signaling.answer import announced, room_answer_to
from mien_signaling.audience import Full, announcement_of
from mien_signaling.background import BackgroundTasks
from mien_signaling.broadcast import Broadcast
from mien_signaling.broadcasts import Broadcasts
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.participants import admitted
from mien_signaling.peer_session import Gone
from mien_signaling.room_offer import RoomOffer
from mien_signaling.room_viewer import RoomViewer
from mien_signaling.seats import Seats
from mien_signaling.settings import SignalingSettings
from mien_signaling.watched_room import WatchedRoom

#: How soon a viewer notices who has joined or left its room, and who speaks.
INTERVAL_S = 0.1
#: How soon a participant that was removed from its room sees nothing of it any more.
_DEPARTED_INTERVAL_S = 0.5
#: How soon a session that could not be watched is tried again.
_RETRY_S = 0.5
#: How many viewers that this service ended are remembered. Their session URLs say why they were ended.
_ENDED_REMEMBERED = 1000


class RoomAudience:
    """Owns the viewers of rooms. `aclose` ends all of them. media_port: None if each viewer has its own port."""

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
        self._registry = Rooms(redis)
        self._live = LiveRooms(redis)
        self._broadcasts = broadcasts
        self._seats = seats
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._media_port = media_port
        self._rooms: dict[str, WatchedRoom] = {}
        self._dropped: dict[str, list[tuple[str, str]]] = {}
        self._ended: OrderedDict[str, tuple[str, Gone]] = OrderedDict()
        self._departed_s = self._retried_s = float("-inf")
        self._tasks = BackgroundTasks("removing a room's viewer failed")
        self._announcement = announcement_of(settings)
        broadcasts.on_ended(self._session_ended)
        seats.also_count(lambda: sum(viewer.load for viewer in self._viewers()))
        metrics.watch_rooms(lambda: len(self._rooms), lambda: self._slots(True), lambda: self._slots(False))

    async def join(self, room_id: str, offer: RoomOffer, bearer: Principal) -> tuple[str, str]:
        """Connect a participant to its room; returns the connection's unguessable id and our answer.

        Raises Full, UnreadableOffer, ClosedWhileAnswering, Problem 403 or 404 for a participant, or an error of Redis.
        """
        self._demand_seat()
        people = (await self._registry.people([room_id]))[room_id]
        admitted(people.get(bearer.scope or ""))
        self._demand_seat()
        room = self._rooms.setdefault(room_id, WatchedRoom(room_id, self._broadcasts, self._clock))
        viewer = RoomViewer(
            secrets.token_urlsafe(24),
            bearer,
            offer,
            self._settings.bitrate_limits,
            self._settings.ice_servers,
            self._media_port,
            self._clock,
            self._metrics,
            lambda _: room.show(),
            lambda viewer, reason: self._tasks.spawn(self._remove(room, viewer, reason)),
        )
        replaced = [one for one in room.viewers.values() if one.participant_id == viewer.participant_id]
        room.viewers[viewer.viewer_id] = viewer
        await self._learn(room, people)
        try:
            accepted, _ = await asyncio.gather(viewer.answer(), room.open_sources())
            room.arrange()
            claim = LiveChange(claimed={viewer.participant_id: viewer.slots_state()})
            room.live_version = (await self._live.write({room_id: claim}))[room_id].version
            viewer.has_claimed = True
        except BaseException:
            await self._remove(room, viewer, Gone.REFUSED)
            raise
        for older in replaced:
            older.end(Gone.REPLACED)
        viewer.expect_connection(self._settings.connect_timeout_s)
        if self._announcement is not None:
            accepted = announced(accepted, self._announcement)
        return viewer.viewer_id, room_answer_to(offer, accepted)

    async def more(self, room_id: str, viewer: RoomViewer, offer: RoomOffer) -> str:
        """Give a viewer more slots on its live connection; returns our answer.

        Raises UnacceptableOffer, UnreadableOffer or ClosedWhileAnswering.
        """
        accepted = await viewer.answer_more(offer)
        if (room := self._rooms.get(room_id)) is not None:
            room.arrange()
            room.written_s = float("-inf")  # the next step tells who is in the new slots
        if self._announcement is not None:
            accepted = announced(accepted, self._announcement)
        return room_answer_to(offer, accepted)

    def find(self, room_id: str, viewer_id: str) -> RoomViewer | None:
        room = self._rooms.get(room_id)
        return None if room is None else room.viewers.get(viewer_id)

    def why_ended(self, room_id: str, viewer_id: str) -> Gone | None:
        """Why this service ended a viewer, among the newest thousand; None if it did not."""
        of_room, reason = self._ended.get(viewer_id, (None, None))
        return reason if of_room == room_id else None

    async def leave(self, viewer: RoomViewer) -> None:
        """Remove a viewer that its client ends."""
        for room in list(self._rooms.values()):
            if viewer.viewer_id in room.viewers:
                await self._remove(room, viewer, Gone.LEFT)

    # Operators

    def roster(self) -> dict[str, list[ViewerState]]:
        """The viewers of this process by the sessions that their slots show."""
        found: dict[str, list[ViewerState]] = {}
        for viewer in self._viewers():
            for slot in viewer.slots:
                if slot.session_id is not None:
                    found.setdefault(slot.session_id, []).append(viewer.state_of(slot))
        return found

    def end(self, viewer_id: str) -> None:
        """End a viewer for an operator; does nothing if this process does not have it."""
        for viewer in self._viewers():
            if viewer.viewer_id == viewer_id:
                viewer.end(Gone.OPERATOR)

    @property
    def connected(self) -> int:
        return sum(viewer.is_connected for viewer in self._viewers())

    @property
    def connecting(self) -> int:
        return sum(not viewer.is_connected for viewer in self._viewers())

    # What changes in the rooms

    async def step(self) -> None:
        """Notice changes, fill the slots, and write the live state; one step of a loop. Raises the errors of Redis."""
        await self._clock.sleep(INTERVAL_S)
        self._end_expired()
        if self._rooms:
            marks = await self._registry.marks(list(self._rooms))
            await self._read(marks)
            await self._end_departed()
        else:
            marks = {}
        await self._write(marks)

    async def _read(self, marks: dict[str, RoomMarks]) -> None:
        """Read the rooms that have changed, and watch the sessions of those who are in them."""
        for room_id, mark in marks.items():
            if mark.has_ended and (ended := self._rooms.get(room_id)) is not None:
                for viewer in list(ended.viewers.values()):
                    viewer.end(Gone.SESSION_ENDED)
        # Without a version Redis has lost the room: what is known stays until a gateway has written it again.
        moved = [name for name, mark in marks.items() if mark.version and mark.version != self._version(name)]
        people = await self._registry.people(moved)
        now_s = self._clock.monotonic_s()
        retries = now_s - self._retried_s >= _RETRY_S
        self._retried_s = now_s if retries else self._retried_s
        for room in list(self._rooms.values()):
            room.forget_lost()
            if room.room_id in people:
                await self._learn(room, people[room.room_id])
            if room.room_id in people or (retries and not room.is_complete):
                await room.open_sources()
            if room.room_id in people:
                room.version = marks[room.room_id].version

    async def _learn(self, room: WatchedRoom, people: Mapping[str, ParticipantRecord]) -> None:
        """Take the room's participants. Those who are missing have left, or Redis has lost them."""
        missing = room.missing(people)
        left = await self._registry.has_left([(room.room_id, name) for name in missing])
        lost = [name for name, has_left in zip(missing, left, strict=True) if not has_left]
        room.learn(people.values(), lost)

    def _version(self, room_id: str) -> bytes:
        room = self._rooms.get(room_id)
        return b"" if room is None else room.version

    async def _write(self, marks: dict[str, RoomMarks]) -> None:
        """Fill the slots, and tell the live state what has changed."""
        changes, now_s = {}, self._clock.monotonic_s()
        for room_id, room in self._rooms.items():
            changed = room.arrange()
            is_due = now_s - room.written_s >= KEEP_ALIVE_INTERVAL_S
            # Another service has written, or Redis has lost it: write everything again, and learn whom others replaced.
            is_foreign = room_id in marks and marks[room_id].live_version != room.live_version
            viewers = room.newest() if is_due or is_foreign else [one for one in room.newest() if one in changed]
            speakers = room.speakers()
            tells = is_due or is_foreign or room.has_news(speakers)
            if tells:
                room.tells(speakers)
            kept = {one.participant_id: one.slots_state() for one in viewers}
            if is_due:
                room.written_s = now_s
            changes[room_id] = LiveChange(
                speakers if tells else None, kept=kept, dropped=self._dropped.pop(room_id, ())
            )
        for room_id, dropped in self._dropped.items():  # of rooms that have no viewer here any more
            changes[room_id] = LiveChange(dropped=dropped)
        self._dropped = {}
        try:
            answers = await self._live.write(changes)
        except BaseException:
            for room in self._rooms.values():
                room.live_version = b""  # everything is written again
            raise
        for room_id, answer in answers.items():
            if (watched := self._rooms.get(room_id)) is not None:
                watched.live_version = answer.version
                for viewer in watched.newest():
                    if viewer.participant_id in answer.refused:
                        viewer.end(Gone.REPLACED)

    async def _end_departed(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._departed_s < _DEPARTED_INTERVAL_S:
            return
        self._departed_s = now_s
        viewers = [(room.room_id, viewer) for room in self._rooms.values() for viewer in room.viewers.values()]
        left = await self._registry.has_left([(room_id, viewer.participant_id) for room_id, viewer in viewers])
        for (_, viewer), has_left in zip(viewers, left, strict=True):
            if has_left:
                viewer.end(Gone.DEPARTED)

    def _end_expired(self) -> None:
        now_unix_s = self._clock.unix_s()
        for viewer in self._viewers():
            if viewer.has_expired(now_unix_s):
                viewer.end(Gone.EXPIRED)

    async def _session_ended(self, broadcast: Broadcast) -> None:
        for room in self._rooms.values():
            room.lose(broadcast)

    # The end

    async def aclose(self) -> None:
        """Close every connection, so that viewers notice it at once."""
        rooms = [(room, viewer) for room in self._rooms.values() for viewer in room.viewers.values()]
        await asyncio.gather(*(self._remove(room, viewer, Gone.SHUTDOWN) for room, viewer in rooms))
        await self._tasks.finish()

    async def _remove(self, room: WatchedRoom, viewer: RoomViewer, reason: Gone) -> None:
        if room.viewers.pop(viewer.viewer_id, None) is None:
            return
        if reason in {Gone.OPERATOR, Gone.REPLACED}:
            self._ended[viewer.viewer_id] = room.room_id, reason
            while len(self._ended) > _ENDED_REMEMBERED:
                self._ended.popitem(last=False)
        self._dropped.setdefault(room.room_id, []).append((viewer.participant_id, viewer.viewer_id))
        if not room.viewers and self._rooms.get(room.room_id) is room:
            del self._rooms[room.room_id]
            room.aclose()
        self._metrics.viewer_gone(reason)
        await viewer.close()

    def _demand_seat(self) -> None:
        if self._seats.are_taken:
            raise Full("this service has as many viewers as allowed")

    def _slots(self, are_filled: bool) -> int:
        return sum(slot.is_filled is are_filled for viewer in self._viewers() for slot in viewer.slots)

    def _viewers(self) -> list[RoomViewer]:
        return [viewer for room in self._rooms.values() for viewer in room.viewers.values()]
