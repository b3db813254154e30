"""All connections of this gateway to the events of rooms. `room_connection.py` is one of them.

A client sends its token as `Authorization: Bearer`, or as a subprotocol: `Sec-WebSocket-Protocol: mien.room.v1,
bearer.TOKEN`; the gateway selects `mien.room.v1`. The gateway refuses a connection before the handshake by an HTTP
status with a problem document, and closes an open one with a `CloseCode`.

Events come from the room's log in Redis. A gateway asks for the newest numbers of all its rooms with one command, ten
times a second and at once after a change that it made, and reads the logs of the rooms that have moved. A client that
names `?since=N` gets the events after N if the log still has all of them, and the whole state otherwise. So does a
client whose gateway has missed events, because Redis did not answer or came back empty. The same command asks for the
versions of the rooms' live states (`room_live.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass, field

from fastapi import APIRouter, WebSocket

from mien_gateway import room_state
from mien_gateway.access import Access
from mien_gateway.attended import AttendedSessions
from mien_gateway.room_connection import MAX_WAITING_BYTES, CloseCode, RoomConnection
from mien_gateway.room_live import LiveStates
from mien_gateway.room_state import Room
from mien_gateway.room_talk import RoomTalk
from mien_gateway.room_views import ParticipantView, RoomView, event_view, own_connection, visible_participants
from mien_gateway.rooms import RoomDesk
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.live_rooms import LiveRooms
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, Registry
from mien_shared.bus.room_messages import EventType, LeaveReason, LoggedEvent, RoomEvent
from mien_shared.bus.rooms import Connected, Kept
from mien_shared.http.problems import Code, Problem, redis_problems
from mien_shared.http.tokens import bearer_token

SUBPROTOCOL = "mien.room.v1"
_BEARER_SUBPROTOCOL = "bearer."
#: How long an event of another gateway takes at most to reach the clients of this one, beside the round trip.
INTERVAL_S = 0.1
#: Most events of one room that are queued before the sockets may send: far less than a client may be owed.
_MOST_AT_ONCE = 32
_EXPIRED = "the token has expired"


@dataclass
class _LocalRoom:
    """The connections to one room. cursor: the newest event that was read, or an older one that a client needs."""

    cursor: int
    connections: list[RoomConnection] = field(default_factory=list)


class RoomHub:
    """Accepts connections, and brings them their rooms' events."""

    def __init__(self, desk: RoomDesk, registry: Registry, live: LiveRooms, access: Access, speaker_ttl_s: int) -> None:
        self._desk = desk
        self._live = LiveStates(live)
        self._access = access
        self._attended = AttendedSessions(desk, registry, speaker_ttl_s)
        self._local: dict[str, _LocalRoom] = {}

    @property
    def _connections(self) -> list[RoomConnection]:
        return [one for room in self._local.values() for one in room.connections]

    # One connection

    async def run(self, socket: WebSocket, room_id: str) -> None:
        """Serve one connection until it closes, or refuse it by an HTTP status before the handshake."""
        try:
            since = _since(socket)
            connection = await self._admit(socket, room_id)
        except Problem as problem:
            await socket.send_denial_response(problem.response())
            return
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
        self._desk.metrics.room_connection_opened()
        code = int(CloseCode.FAILED)
        try:
            await self._begin(connection, since)
            self._attach(connection)
            read = asyncio.create_task(RoomTalk(self._desk, connection).read(), name="room messages")
            code = await connection.serve(read)
        except BUS_ERRORS:
            with contextlib.suppress(RuntimeError, OSError):
                await socket.close(CloseCode.FAILED, "the session registry does not answer")
        finally:
            self._desk.metrics.room_connection_closed(code)
            self._detach(connection)
            with contextlib.suppress(*BUS_ERRORS):
                await self._desk.rooms.disconnect(room_id, connection.participant_id, connection.now.connection_id)

    async def _admit(self, socket: WebSocket, room_id: str) -> RoomConnection:
        """Make this connection the owner of its participant; raises Problem."""
        self._access.request(socket)
        token = bearer_token(socket.headers.get("authorization"))
        for offered in socket.scope["subprotocols"]:
            if offered.startswith(_BEARER_SUBPROTOCOL):
                token = token or offered.removeprefix(_BEARER_SUBPROTOCOL)
        principal = self._access.participant(room_id, token)
        participant_id, expires_unix_s = principal.scope, principal.expires_unix_s
        assert participant_id is not None and expires_unix_s is not None  # a token's bearer
        connection_id = secrets.token_hex(8)
        async with redis_problems():
            room, change = await self._desk.change(
                room_id, lambda room: room_state.connect(room, participant_id, connection_id)
            )
        participant = next(iter(change.put), room.participants[participant_id])
        now = Connected(room.record, participant, connection_id, room.now_ms)
        return RoomConnection(socket, now, expires_unix_s)

    async def _begin(self, connection: RoomConnection, since: int | None) -> None:
        """Queue what the client missed or the whole state, and the live state. Raises the errors of Redis."""
        if since is None or not await self._resume(connection, since):
            connection.needs_state = True
            await self._send_state(connection.room_id, [connection])
        await self._live.greet(connection)

    async def _resume(self, connection: RoomConnection, since: int) -> bool:
        """Queue the events after `since`; False if some may be missing, or were before the participant joined."""
        participant = connection.now.participant
        if not participant.is_admitted or since < participant.joined_at_ms:
            return False
        missed = (await self._desk.rooms.events_after({connection.room_id: since}))[connection.room_id]
        if not missed or not 0 < missed[0].previous <= since:
            return False
        texts = [self._text(logged) for logged in missed if room_state.sees(participant, logged.event)]
        if sum(map(len, texts)) > MAX_WAITING_BYTES // 2:
            return False
        for text in (json.dumps({"type": "resumed", "sequence": since}), *texts):
            connection.push(text)
        connection.cursor = missed[-1].sequence
        return True

    def _attach(self, connection: RoomConnection) -> None:
        local = self._local.setdefault(connection.room_id, _LocalRoom(connection.cursor))
        local.cursor = min(local.cursor, connection.cursor)
        for older in local.connections:
            if older.participant_id == connection.participant_id:
                self._replaced(older)
        local.connections.append(connection)
        self._desk.changed.set()

    def _detach(self, connection: RoomConnection) -> None:
        local = self._local.get(connection.room_id)
        if local is not None and connection in local.connections:
            local.connections.remove(connection)
            if not local.connections:
                del self._local[connection.room_id]

    # Events

    async def step(self) -> None:
        """Read the events of all rooms and queue them; one step of a loop. Raises the errors of Redis."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_S):
                await self._desk.changed.wait()
        self._desk.changed.clear()
        self._close_expired()
        if not self._local:
            return
        newest = await self._desk.rooms.newest(list(self._local))
        sequences = {name: found.sequence for name, found in newest.items() if found.sequence is not None}
        for room_id, sequence in sequences.items():
            self._restart_if_behind(room_id, sequence)
        cursors = {name: local.cursor for name, local in self._local.items() if sequences.get(name, 0) > local.cursor}
        logs = await self._desk.rooms.events_after(cursors, _MOST_AT_ONCE)
        for room_id, events in logs.items():
            if len(events) == _MOST_AT_ONCE:
                self._desk.changed.set()  # there may be more; what was read is sent first
            for logged in events:
                self._take(room_id, logged)
        await self._attended.learn(self._connections)
        for room_id, local in list(self._local.items()):
            if stale := [one for one in local.connections if one.needs_state]:
                await self._send_state(room_id, stale)
        versions = {name: found.live_version for name, found in newest.items() if name in self._local}
        await self._live.tell(versions, {name: self._local[name].connections for name in versions})

    def _restart_if_behind(self, room_id: str, sequence: int) -> None:
        """Numbers that fell: Redis lost its data, and its clock is behind that of the server before."""
        local = self._local.get(room_id)
        if local is not None and sequence < local.cursor:
            local.cursor = 0
            for connection in local.connections:
                connection.cursor, connection.needs_state = 0, True

    def _take(self, room_id: str, logged: LoggedEvent) -> None:
        local = self._local.get(room_id)
        if local is None:
            return
        text: str | None = None
        is_next = 0 < logged.previous <= local.cursor or logged.previous == local.cursor
        for connection in list(local.connections):
            if logged.sequence <= connection.cursor:
                continue
            connection.needs_state = connection.needs_state or not is_next
            connection.cursor = logged.sequence
            self._learn(connection, logged.event)
            if room_state.sees(connection.now.participant, logged.event) and not connection.needs_state:
                text = text or self._text(logged)
                connection.push(text)
            self._close_by(connection, logged.event)
        local.cursor = logged.sequence

    def _learn(self, connection: RoomConnection, event: RoomEvent) -> None:
        """Apply an event to what is known of the connection's participant and room."""
        now = connection.now
        if event.room is not None:
            connection.now = Connected(event.room, now.participant, now.connection_id, now.seen_ms)
        own = event.participant
        if own is not None and own.participant_id == connection.participant_id:
            # From the lobby into the room, or a new moderator: it sees more than before. With another session or other
            # grants, it has other URLs.
            sees_more = own.is_admitted != now.participant.is_admitted or own.moderates != now.participant.moderates
            moves = own.session_id != now.participant.session_id or own.grants != now.participant.grants
            connection.needs_state = connection.needs_state or sees_more or moves
            connection.now = Connected(now.room, own, now.connection_id, now.seen_ms)

    def _close_by(self, connection: RoomConnection, event: RoomEvent) -> None:
        own = event.participant_id == connection.participant_id
        if event.type is EventType.CONNECTED and own and event.connection_id != connection.now.connection_id:
            self._replaced(connection)
        elif event.type is EventType.PARTICIPANT_LEFT and own:
            removed = event.reason == LeaveReason.REMOVED
            code = CloseCode.REMOVED if removed else CloseCode.LEFT
            connection.close(code, "a moderator removed this participant" if removed else "the participant has left")
        elif event.type is EventType.BYE:
            connection.close(CloseCode.ROOM_ENDED, "the room has ended")

    def _replaced(self, connection: RoomConnection) -> None:
        connection.close(CloseCode.REPLACED, "replaced by a newer connection of this participant")

    def _text(self, logged: LoggedEvent) -> str:
        return json.dumps(event_view(logged, self._desk.settings), ensure_ascii=False, separators=(",", ":"))

    async def _send_state(self, room_id: str, connections: list[RoomConnection]) -> None:
        """Queue the whole state of a room; raises the errors of Redis."""
        try:
            room = await self._desk.room(room_id)
        except Problem:  # it has ended, or Redis came back empty: the next keep-alive decides
            return
        for connection in connections:
            own = room.participants.get(connection.participant_id)
            if own is None:
                continue
            connection.needs_state = False
            connection.told.clear()
            connection.cursor = room.sequence
            connection.now = Connected(room.record, own, connection.now.connection_id, connection.now.seen_ms)
            connection.push(self._state_text(room, connection))
        if (local := self._local.get(room_id)) is not None:
            local.cursor = min(local.cursor, room.sequence)

    def _state_text(self, room: Room, connection: RoomConnection) -> str:
        own, settings = connection.now.participant, self._desk.settings
        state: dict[str, object] = {"type": "room" if own.is_admitted else "waiting"}
        if own.is_admitted:
            seen = visible_participants(list(room.participants.values()), own.moderates)
            views = [ParticipantView.of(one, settings).model_dump(mode="json") for one in seen]
            state |= {"sequence": room.sequence, "room": RoomView.of(room.record).model_dump(), "participants": views}
            state["connection"] = own_connection(own, room.record.room_id, settings, self._desk.clock.unix_s())
        return json.dumps(state | {"participant_id": own.participant_id}, ensure_ascii=False)

    def _close_expired(self) -> None:
        now_unix_s = self._desk.clock.unix_s()
        for connection in self._connections:
            if connection.expires_unix_s < now_unix_s:
                connection.close(CloseCode.TOKEN_EXPIRED, _EXPIRED)

    # Life

    async def keep_alive(self) -> None:
        """Keep the rooms, participants and sessions of all connections alive; one step of a loop.

        Raises the errors of Redis.
        """
        await self._desk.clock.sleep(KEEP_ALIVE_INTERVAL_S)
        connections = self._connections
        if not connections:
            return
        for connection, keeping in zip(
            connections, await self._desk.rooms.keep([one.now for one in connections]), strict=True
        ):
            if keeping.now is not None:
                connection.now = keeping.now
            if keeping.kept is Kept.RESTORED and connection.now.participant.is_admitted:
                event = RoomEvent(type=EventType.PARTICIPANT_JOINED, participant=connection.now.participant)
                await self._desk.say(connection.now.room, event)
            self._close_lost(connection, keeping.kept)
        await self._attended.keep(connections)

    def _close_lost(self, connection: RoomConnection, kept: Kept) -> None:
        match kept:
            case Kept.REPLACED:
                self._replaced(connection)
            case Kept.GONE:
                connection.close(CloseCode.LEFT, "the participant has left")
            case Kept.ENDED:
                connection.close(CloseCode.ROOM_ENDED, "the room has ended")


def _since(socket: WebSocket) -> int | None:
    """The query's `since`; raises Problem."""
    text = socket.query_params.get("since")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise Problem(Code.INVALID_REQUEST, "since must be the sequence number of an event")
    return int(text)


router = APIRouter()


@router.websocket("/v1/rooms/{room_id}/events")
async def events(socket: WebSocket, room_id: str) -> None:
    hub: RoomHub = socket.app.state.room_hub
    await hub.run(socket, room_id)
