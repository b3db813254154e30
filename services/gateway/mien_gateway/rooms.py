"""The operations on rooms. `room_state.py` decides; here a decision is committed, and its consequences follow.

The gateway whose commit succeeds carries out the consequences, once: it ends the sessions of participants that have
left, tells webhooks, and writes the audit log. If it is killed meanwhile, `room_limits.py` of another gateway ends the
sessions.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

from mien_gateway import audit, room_state
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.room_news import news_of, room_data
from mien_gateway.room_state import Change, Joining, NoSuchParticipant, Room, RoomFull, RoomLimits, RoomLocked
from mien_gateway.room_views import NewParticipant, NewRoom
from mien_gateway.sessions import Sessions
from mien_gateway.settings import GatewaySettings
from mien_gateway.webhooks import WebhookEvent, WebhookResult, Webhooks
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.messages import EndReason, SessionRecord
from mien_shared.bus.room_messages import (
    LeaveReason,
    ParticipantRecord,
    RoomEnd,
    RoomEvent,
    RoomRecord,
)
from mien_shared.bus.rooms import Commit, Rooms, Snapshot
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem

logger = logging.getLogger(__name__)

#: How often a change is decided again because another gateway changed the room in between.
_TRIES = 30
#: What the keys of a room live longer than the longest time for which nothing need write them.
_LIFE_MARGIN_S = 60


@dataclass
class RoomDesk:
    """Every method raises Problem or an error of Redis. changed: set after a room has changed here."""

    settings: GatewaySettings
    rooms: Rooms
    sessions: Sessions
    webhooks: Webhooks
    metrics: GatewayMetrics
    clock: Clock
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @property
    def limits(self) -> RoomLimits:
        return RoomLimits(self.settings.room_join_s, self.settings.room_departure_s, self.settings.max_room_s)

    # Rooms

    async def create(self, new: NewRoom, by: Principal) -> RoomRecord:
        """Create a room, or return the one that has its name."""
        held = None if new.name is None else await self.rooms.named(new.name)
        if held is not None and (found := (await self.rooms.read(held)).record) is not None:
            return found
        await self._demand_room_for(by)
        record = await self._record(new, by)
        await self.rooms.commit(record.room_id, "", Commit(record.life_s, record, (), (), (), {}, None))
        if new.name is not None:
            winner = await self.rooms.claim_name(record, held or "")
            if winner != record.room_id:  # another call was faster: its room has been written before it had the name
                await self.change(record.room_id, lambda room: Change(end=RoomEnd.ENDED))
                return (await self.room(winner)).record
        audit.room_created(by, record.room_id)
        await self._tell([(WebhookEvent.ROOM_STARTED, room_data(record))])
        return record

    async def _record(self, new: NewRoom, by: Principal) -> RoomRecord:
        settings = self.settings
        most = min(new.max_participants or settings.max_participants, settings.max_participants)
        empty_s = new.empty_timeout_s or settings.room_empty_s
        room_id = secrets.token_urlsafe(12)
        now_ms = (await self.rooms.read(room_id)).now_ms
        return RoomRecord(
            room_id=room_id,
            name=new.name,
            owner=by.name,
            created_at_ms=now_ms,
            max_participants=most,
            empty_timeout_s=empty_s,
            lobby=new.lobby,
            metadata=new.metadata,
            empty_since_ms=now_ms,
            life_s=max(empty_s, settings.room_join_s, settings.room_departure_s) + _LIFE_MARGIN_S,
        )

    async def _demand_room_for(self, by: Principal) -> None:
        if self.settings.max_rooms_per_key:
            owned = sum(room.owner == by.name for room in await self.listed())
            if owned >= self.settings.max_rooms_per_key:
                raise Problem(Code.ROOM_LIMIT, f"this API key has {owned} rooms, which is as many as allowed")

    async def listed(self) -> list[RoomRecord]:
        """All rooms, oldest first."""
        found = await self.rooms.read_all(await self.rooms.listed())
        records = [snapshot.record for snapshot in found.values() if snapshot.record is not None]
        return sorted(records, key=lambda record: (record.created_at_ms, record.room_id))

    async def room(self, room_id: str) -> Room:
        return room_of(await self.rooms.read(room_id))

    async def lock(self, room_id: str, locked: bool, by: Principal) -> RoomRecord:
        room, change = await self.change(room_id, lambda room: room_state.lock(room, locked))
        if change:
            audit.room_locked(by, room_id, locked)
        return change.record or room.record

    async def end(self, room_id: str, reason: RoomEnd, by: Principal | None) -> None:
        await self.change(room_id, lambda room: room_state.end(room, reason))
        audit.room_ended(by, room_id, reason)

    async def end_overdue(self, room_id: str, reason: RoomEnd) -> None:
        """End a room that has reached a limit, if it still has."""

        def decide(room: Room) -> Change:
            still = room_state.overdue(room, self.limits) is reason
            return room_state.end(room, reason) if still else Change()

        if (await self.change(room_id, decide))[1]:
            audit.room_ended(None, room_id, reason)

    # Participants

    async def join(self, room_id: str, new: NewParticipant, by: Principal) -> ParticipantRecord:
        """Let an identity join; a participant that publishes gets a session. Counts the result."""
        try:
            joined = await self._join(room_id, new, by)
        except Problem as problem:
            self.metrics.room_joined(problem.code)
            raise
        self.metrics.room_joined("created")
        audit.participant_created(by, room_id, joined.participant_id)
        return joined

    async def _join(self, room_id: str, new: NewParticipant, by: Principal) -> ParticipantRecord:
        grants = frozenset(Grant(grant) for grant in new.grants)
        if new.avatar_id is not None and Grant.PUBLISH not in grants:
            raise Problem(Code.INVALID_REQUEST, "grants: an avatar needs the grant publish")
        room = await self.room(room_id)
        known = room.of_identity(new.identity)
        participant_id = secrets.token_urlsafe(12) if known is None else known.participant_id
        joining = Joining(participant_id, new.identity, new.name or new.identity, grants, new.avatar_id)
        with _join_problems():
            expected = room_state.join(room, joining)  # before a session is made for nothing
        after = next(iter(expected.put), known)
        session = None
        if after is not None and after.is_admitted and new.avatar_id is not None and after.session_id is None:
            session = await self.sessions.placed(new.avatar_id, by, room_id, participant_id)
            joining = replace(joining, session_id=session.session_id)
        with _join_problems():
            return await self._with_session(
                session, room_id, participant_id, new.identity, lambda room: room_state.join(room, joining)
            )

    async def admit(self, room_id: str, participant_id: str, by: Principal) -> None:
        """Let a participant out of the lobby, with a session for its avatar."""
        one = (await self.room(room_id)).participants.get(participant_id)
        session = None
        if one is not None and not one.is_admitted and one.avatar_id is not None:
            session = await self.sessions.placed(one.avatar_id, by, room_id, participant_id)
        session_id = None if session is None else session.session_id
        await self._with_session(
            session, room_id, participant_id, None, lambda room: room_state.admit(room, participant_id, session_id)
        )
        audit.participant_changed(by, room_id, participant_id, "admitted")

    async def set_avatar(self, room_id: str, participant_id: str, avatar_id: str | None, by: Principal) -> None:
        """Give a participant another avatar, in a new session, or none."""
        one = (await self.room(room_id)).participants.get(participant_id)
        if one is not None and one.avatar_id == avatar_id and (avatar_id is None) == (one.session_id is None):
            return
        session = None
        if one is not None and one.is_admitted and avatar_id is not None:
            session = await self.sessions.placed(avatar_id, by, room_id, participant_id)
        session_id = None if session is None else session.session_id
        await self._with_session(
            session,
            room_id,
            participant_id,
            None,
            lambda room: room_state.set_avatar(room, participant_id, avatar_id, session_id),
        )

    async def lose_session(self, room_id: str, participant_id: str, session_id: str) -> None:
        """A participant's session has ended by itself: the participant is a listener now."""

        def decide(room: Room) -> Change:
            one = room.participant(participant_id)
            return room_state.set_avatar(room, participant_id, None, None) if one.session_id == session_id else Change()

        await self.change(room_id, decide)

    async def update(
        self, room_id: str, participant_id: str, *, muted: bool | None = None, hand: bool | None = None
    ) -> Change:
        return (
            await self.change(room_id, lambda room: room_state.update(room, participant_id, muted=muted, hand=hand))
        )[1]

    async def leave(self, room_id: str, participant_id: str, reason: LeaveReason, by: Principal | None = None) -> None:
        await self.change(room_id, lambda room: room_state.leave(room, participant_id, reason))
        if by is not None and reason is LeaveReason.REMOVED:
            audit.participant_changed(by, room_id, participant_id, "removed")

    async def say(self, room: RoomRecord, event: RoomEvent) -> None:
        """Add an event that changes nothing to the room's log."""
        await self.rooms.say(room, event)
        self.changed.set()

    # Changes

    async def change(self, room_id: str, decide: Callable[[Room], Change]) -> tuple[Room, Change]:
        """Decide and commit until no other change comes between; returns the room before the change.

        Raises Problem (also for NoSuchParticipant), an error of Redis, or another error of `decide`.
        """
        lock = self._locks.setdefault(room_id, asyncio.Lock())
        async with lock:
            for _ in range(_TRIES):
                room = await self.room(room_id)
                try:
                    change = decide(room)
                except NoSuchParticipant:
                    raise participant_not_found() from None
                if not change:
                    return room, change
                if await self.rooms.commit(room_id, room.version, _commit(room, change)) is not None:
                    break
                await self._pause()
            else:
                raise Problem(Code.ROOM_BUSY, "the room changed too often at the same time")
        self.changed.set()
        await self._follow_up(room, change)
        return room, change

    async def _pause(self) -> None:
        await self.clock.sleep(random.uniform(0.001, 0.02))

    async def _with_session(
        self,
        session: SessionRecord | None,
        room_id: str,
        participant_id: str,
        identity: str | None,
        decide: Callable[[Room], Change],
    ) -> ParticipantRecord:
        """Commit a change that gives a participant a session; end the session if the participant did not get it."""
        try:
            room, change = await self.change(room_id, decide)
            after = {**room.participants, **{one.participant_id: one for one in change.put}}
            found = after.get(participant_id) or next(one for one in after.values() if one.identity == identity)
        except BaseException:
            await self._drop(session)
            raise
        if session is not None and found.session_id != session.session_id:
            await self._drop(session)
        return found

    async def _drop(self, session: SessionRecord | None) -> None:
        if session is not None:
            try:
                await self.sessions.end_for_limit(session.session_id, EndReason.LEFT)
            except BUS_ERRORS:
                logger.warning("a session without a participant was not ended; the limit on its speaker will end it")

    async def _follow_up(self, room: Room, change: Change) -> None:
        """What a commit entails. If Redis fails now, the sessions end by their limits, and webhooks are lost."""
        ends = [(one.session_id, EndReason.LEFT) for one in change.gone]
        for one in change.put:
            before = room.participants.get(one.participant_id)
            if before is not None and before.session_id not in {None, one.session_id}:
                ends.append((before.session_id, EndReason.REPLACED))
        try:
            await self._tell(news_of(room, change) if change.events else [])
            for session_id, reason in ends:
                if session_id is not None:
                    await self.sessions.end_for_limit(session_id, reason)
            if change.end is not None:
                await self.rooms.free_name(room.record)
        except BUS_ERRORS as error:
            logger.warning("redis failed after a change of a room", extra={"error": str(error)})

    async def _tell(self, events: list[tuple[WebhookEvent, dict[str, Any]]]) -> None:
        try:
            await self.webhooks.push(events)
        except BUS_ERRORS:
            self.metrics.webhook(WebhookResult.DROPPED, len(events))
            raise


def participant_not_found() -> Problem:
    return Problem(Code.PARTICIPANT_NOT_FOUND, "there is no such participant, or it has left the room")


def room_of(snapshot: Snapshot) -> Room:
    """Raises Problem if there is no such room."""
    if snapshot.record is None:
        ended = snapshot.end_reason is not None
        raise Problem(Code.ROOM_NOT_FOUND, "the room has ended" if ended else "there is no room with this id")
    return Room(
        snapshot.record,
        snapshot.participants,
        snapshot.presence,
        snapshot.now_ms,
        snapshot.version,
        snapshot.sequence,
    )


def _commit(room: Room, change: Change) -> Commit:
    return Commit(
        life_s=room.record.life_s,
        record=change.record,
        put=change.put,
        gone=[one.participant_id for one in change.gone],
        events=change.events,
        connected=change.connected,
        end=change.end,
    )


@contextmanager
def _join_problems() -> Iterator[None]:
    """Turn the refusals of a join into problems."""
    try:
        yield
    except RoomLocked as error:
        raise Problem(Code.ROOM_LOCKED, "the room is locked") from error
    except RoomFull as error:
        raise Problem(Code.ROOM_FULL, "the room has as many participants as allowed") from error
