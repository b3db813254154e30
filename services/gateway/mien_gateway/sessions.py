"""The routes of the REST API for sessions."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from redis.exceptions import OutOfMemoryError

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, TOKEN, TOKEN_PROBLEMS, Gate
from mien_gateway.avatars import stored_avatar
from mien_gateway.bundled import is_bundled
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.settings import GatewaySettings
from mien_gateway.uplinks import Uplinks
from mien_shared.avatars import AvatarStore, AvatarStoreError
from mien_shared.bus.channels import send_control
from mien_shared.bus.messages import EndReason, SessionRecord, SessionStats, StopSession
from mien_shared.bus.placement import AllFull, NoGenerator, place
from mien_shared.bus.registry import Registry
from mien_shared.bus.rooms import Rooms
from mien_shared.bus.viewers import Viewers
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal, Role
from mien_shared.http.problems import Code, Problem, describe, redis_problems
from mien_shared.http.tokens import SPEAKER_GRANTS, VIEWER_GRANTS, TokenIssuer, bearer_token
from mien_shared.http.turn import ice_servers_for
from mien_shared.settings import IceServer
from mien_shared.spans import span

logger = logging.getLogger(__name__)


class NewSession(BaseModel):
    """A request for a new session."""

    avatar_id: str = Field(max_length=64)


class CreatedSession(BaseModel):
    """A new session. `token` may send motion to it, watch it and end it; `watch_token` is for its viewers."""

    session_id: str
    token: str
    watch_token: str
    uplink_url: str
    whep_url: str
    ice_servers: list[IceServer]


class SessionView(BaseModel):
    """A session as its viewers and operators see it. `waiting`: no generator holds it at the moment.

    synthetic: always true. Its pictures are made by a computer, and its video says so too (docs/security.md).
    """

    session_id: str
    avatar_id: str
    state: Literal["waiting", "live"]
    generator: str | None
    whep_url: str
    created_at_ms: int
    synthetic: Literal[True] = True
    stats: SessionStats | None


class SessionList(BaseModel):
    sessions: list[SessionView]


class IceServers(BaseModel):
    ice_servers: list[IceServer]


@dataclass(frozen=True, slots=True)
class Sessions:
    """The operations behind the routes."""

    settings: GatewaySettings
    registry: Registry
    viewers: Viewers
    rooms: Rooms
    store: AvatarStore
    tokens: TokenIssuer
    uplinks: Uplinks
    metrics: GatewayMetrics
    clock: Clock

    async def create(self, avatar_id: str, by: Principal) -> CreatedSession:
        """Create a session and count the result; raises Problem."""
        session_id = (await self.placed(avatar_id, by)).session_id
        return CreatedSession(
            session_id=session_id,
            token=self.tokens.issue(session_id, SPEAKER_GRANTS),
            watch_token=self.tokens.issue(session_id, VIEWER_GRANTS),
            uplink_url=self.settings.uplink_url(session_id),
            whep_url=self.settings.whep_url(session_id),
            ice_servers=ice_servers_for(self.settings, session_id, self.clock.unix_s()),
        )

    async def placed(
        self, avatar_id: str, by: Principal, room_id: str | None = None, participant_id: str | None = None
    ) -> SessionRecord:
        """Place a new session on a generator and count the result; raises Problem. room_id: of its participant."""
        session = SessionRecord(
            session_id=secrets.token_urlsafe(16),
            avatar_id=avatar_id,
            created_at_ms=int(self.clock.unix_s() * 1000),
            room_id=room_id,
            participant_id=participant_id,
        )
        try:
            with span("create session"):
                await self._place(session)
        except Problem as problem:
            self.metrics.session_requested(problem.code)
            raise
        self.metrics.session_requested("created")
        audit.session_created(by, session.session_id, avatar_id)
        return session

    async def _place(self, session: SessionRecord) -> None:
        await stored_avatar(self.store, session.avatar_id)
        await self._mark_used(session.avatar_id)
        try:
            async with redis_problems():
                await place(self.registry, session)
        except NoGenerator as error:
            raise Problem(Code.NO_GENERATOR, "no generator accepts sessions at the moment") from error
        except AllFull as error:
            raise Problem(Code.FULL, "every generator is full at the moment", retry_after_s=5) from error
        await self._demand_avatar_still(session)

    async def _mark_used(self, avatar_id: str) -> None:
        if self.settings.avatar_unused_s and not is_bundled(avatar_id):
            try:
                await self.store.mark_used(avatar_id)
            except AvatarStoreError as error:  # a full disk is no reason against a session
                logger.warning("an avatar's use was not noted", extra={"error": str(error)})

    async def _demand_avatar_still(self, session: SessionRecord) -> None:
        """Raises Problem if the avatar was deleted while the session was placed; the deletion may not have seen it."""
        try:
            await stored_avatar(self.store, session.avatar_id)
        except Problem as problem:
            if problem.code is Code.AVATAR_NOT_FOUND:
                async with redis_problems():
                    await self._end(session.session_id, EndReason.AVATAR_DELETED)
                raise

    async def view(self, session: SessionRecord) -> SessionView:
        """The session with its current state; raises the errors of Redis."""
        generator = await self.registry.owner(session.session_id)
        stats = await self.registry.stats(session.session_id)
        if stats is not None:
            viewers = await self.viewers.count(session.session_id)
            stats = stats.model_copy(update={"viewers": viewers})
        return SessionView(
            session_id=session.session_id,
            avatar_id=session.avatar_id,
            state="live" if generator else "waiting",
            generator=generator,
            whep_url=self.settings.whep_url(session.session_id),
            created_at_ms=session.created_at_ms,
            stats=stats,
        )

    async def find(self, session_id: str) -> SessionRecord:
        """The session's record; raises Problem or an error of Redis."""
        session = await self.registry.session(session_id)
        if session is None:
            reason = await self.registry.end_reason(session_id)
            detail = "there is no session with this id" if reason is None else EndReason.sentence(reason)
            raise Problem(Code.SESSION_NOT_FOUND, detail)
        return session

    async def end(self, session_id: str, by: Principal) -> None:
        """End the session everywhere, for its speaker or an operator; raises Problem or an error of Redis."""
        await self.find(session_id)
        reason = EndReason.SPEAKER if by.role is Role.BEARER else EndReason.OPERATOR
        await self._end(session_id, reason)
        audit.session_ended(by, session_id, reason)

    async def end_for_limit(self, session_id: str, reason: EndReason) -> None:
        """End a session that has reached a limit; raises the errors of Redis."""
        await self._end(session_id, reason)
        audit.session_ended(None, session_id, reason)

    async def end_all_with(self, avatar_id: str, by: Principal | None) -> int:
        """End all sessions that show an avatar, and return how many; raises the errors of Redis."""
        shown = [session for session in await self.registry.sessions() if session.avatar_id == avatar_id]
        for session in shown:
            await self._end(session.session_id, EndReason.AVATAR_DELETED)
            audit.session_ended(by, session.session_id, EndReason.AVATAR_DELETED)
        return len(shown)

    async def _end(self, session_id: str, reason: EndReason) -> None:
        owner = await self.registry.owner(session_id)
        await self.registry.end_session(session_id, reason)
        self.uplinks.end(session_id, reason)
        if owner is not None:
            await self.registry.free_slot(owner, session_id)
            try:
                await send_control(self.registry.redis, owner, StopSession(session_id=session_id))
            except OutOfMemoryError:  # the session has ended all the same: its generator finds no record
                logger.warning("a generator was not told of a session's end: redis is full")


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


Here = Annotated[Sessions, Depends(_sessions)]

router = APIRouter(prefix="/v1", tags=["sessions"], dependencies=[COUNTED])


@router.post(
    "/sessions",
    status_code=201,
    dependencies=[API_KEY],
    responses=describe(
        *ANY_ROUTE,
        *KEY_PROBLEMS,
        Code.BAD_REQUEST,
        Code.AVATAR_NOT_FOUND,
        Code.FULL,
        Code.NO_GENERATOR,
        Code.REDIS_UNAVAILABLE,
        Code.AVATAR_STORE_UNAVAILABLE,
    ),
)
async def create(new: NewSession, request: Request, response: Response, sessions: Here, gate: Gate) -> CreatedSession:
    """Create a session: an avatar, a place on a generator, and tokens to send motion and to watch. For operators."""
    by = gate.new_session(request)
    created = await sessions.create(new.avatar_id, by)
    response.headers["Location"] = f"/v1/sessions/{created.session_id}"
    return created


@router.get("/sessions", dependencies=[API_KEY], responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.REDIS_UNAVAILABLE))
async def read_all(request: Request, sessions: Here, gate: Gate) -> SessionList:
    """All live sessions, oldest first. For operators."""
    gate.operator(request)
    async with redis_problems():
        return SessionList(sessions=[await sessions.view(found) for found in await sessions.registry.sessions()])


@router.get(
    "/sessions/{session_id}",
    dependencies=[TOKEN],
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS, Code.SESSION_NOT_FOUND, Code.REDIS_UNAVAILABLE),
)
async def read(session_id: str, request: Request, sessions: Here, gate: Gate) -> SessionView:
    """One session with its live statistics. Needs any token of the session or an operator's key."""
    by = gate.watched_session(request, session_id)
    async with redis_problems():
        session = await sessions.find(session_id)
        gate.session(by, session, frozenset(Grant))
        return await sessions.view(session)


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    dependencies=[TOKEN],
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS, Code.SESSION_NOT_FOUND, Code.REDIS_UNAVAILABLE),
)
async def delete(session_id: str, request: Request, sessions: Here, gate: Gate) -> None:
    """End a session for all participants. Needs the speaker's token or an operator's key; 404 after it has ended."""
    by = gate.end_session(request, session_id)
    async with redis_problems():
        await sessions.end(session_id, by)


@router.get(
    "/ice-servers",
    dependencies=[TOKEN],
    openapi_extra={"security": [{}]},
    responses=describe(
        *ANY_ROUTE, *TOKEN_PROBLEMS, Code.SESSION_NOT_FOUND, Code.PARTICIPANT_NOT_FOUND, Code.REDIS_UNAVAILABLE
    ),
)
async def ice_servers(request: Request, sessions: Here, gate: Gate) -> IceServers:
    """STUN and TURN servers.

    Servers with credentials are listed for a valid bearer, or for every caller of an open deployment. TURN credentials
    are made for this answer, for one connection, and expire. A token gets them while its session lives.
    """
    settings, token = sessions.settings, bearer_token(request.headers.get("authorization"))
    if token is None and not settings.demo_open:
        return IceServers(ice_servers=[server for server in settings.ice_servers if server.credential is None])
    caller = gate.watcher(request)
    scope = caller.scope
    if scope is not None and settings.turn_urls:
        async with redis_problems():
            if caller.room is None:
                await sessions.find(scope)
            elif await sessions.rooms.participant(caller.room, scope) is None:
                raise Problem(Code.PARTICIPANT_NOT_FOUND, "there is no such participant, or it has left the room")
    return IceServers(ice_servers=ice_servers_for(settings, scope or "", sessions.clock.unix_s()))
