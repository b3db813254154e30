"""The routes of the REST API for sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, TOKEN, TOKEN_PROBLEMS, Gate
from mien_gateway.avatars import stored_avatar
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.settings import GatewaySettings
from mien_gateway.uplinks import Uplinks
from mien_shared.avatars import AvatarStore
from mien_shared.bus.channels import send_control
from mien_shared.bus.messages import SessionRecord, SessionStats, StopSession
from mien_shared.bus.placement import AllFull, NoGenerator, place
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock
from mien_shared.http.problems import Code, Problem, describe, redis_problems
from mien_shared.http.tokens import SPEAKER_GRANTS, VIEWER_GRANTS, TokenIssuer, bearer_token
from mien_shared.http.turn import ice_servers_for
from mien_shared.settings import IceServer
from mien_shared.spans import span


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
    """A session as its viewers and operators see it. `waiting`: no generator holds it at the moment."""

    session_id: str
    avatar_id: str
    state: Literal["waiting", "live"]
    generator: str | None
    whep_url: str
    created_at_ms: int
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
    store: AvatarStore
    tokens: TokenIssuer
    uplinks: Uplinks
    metrics: GatewayMetrics
    clock: Clock

    async def create(self, avatar_id: str) -> CreatedSession:
        """Create a session and count the result; raises Problem."""
        try:
            with span("create session"):
                created = await self._create(avatar_id)
        except Problem as problem:
            self.metrics.session_requested(problem.code)
            raise
        self.metrics.session_requested("created")
        return created

    async def _create(self, avatar_id: str) -> CreatedSession:
        await stored_avatar(self.store, avatar_id)
        session_id = secrets.token_urlsafe(16)
        session = SessionRecord(
            session_id=session_id, avatar_id=avatar_id, created_at_ms=int(self.clock.unix_s() * 1000)
        )
        try:
            async with redis_problems():
                await place(self.registry, session)
        except NoGenerator as error:
            raise Problem(Code.NO_GENERATOR, "no generator accepts sessions at the moment") from error
        except AllFull as error:
            raise Problem(Code.FULL, "every generator is full at the moment", retry_after_s=5) from error
        return CreatedSession(
            session_id=session_id,
            token=self.tokens.issue(session_id, SPEAKER_GRANTS),
            watch_token=self.tokens.issue(session_id, VIEWER_GRANTS),
            uplink_url=self.settings.uplink_url(session_id),
            whep_url=self.settings.whep_url(session_id),
            ice_servers=ice_servers_for(self.settings, session_id, self.clock.unix_s()),
        )

    async def view(self, session: SessionRecord) -> SessionView:
        """The session with its current state; raises the errors of Redis."""
        generator = await self.registry.owner(session.session_id)
        stats = await self.registry.stats(session.session_id)
        if stats is not None:
            viewers = await self.registry.viewers(session.session_id, self.clock.unix_s())
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
            raise Problem(Code.SESSION_NOT_FOUND, "there is no session with this id")
        return session

    async def end(self, session_id: str) -> None:
        """End the session everywhere; raises Problem or an error of Redis."""
        await self.find(session_id)
        owner = await self.registry.owner(session_id)
        await self.registry.end_session(session_id)
        if owner is not None:
            await self.registry.free_slot(owner, session_id)
            await send_control(self.registry.redis, owner, StopSession(session_id=session_id))
        self.uplinks.end(session_id)


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
    gate.new_session(request)
    created = await sessions.create(new.avatar_id)
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
    gate.watched_session(request, session_id)
    async with redis_problems():
        return await sessions.view(await sessions.find(session_id))


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    dependencies=[TOKEN],
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS, Code.SESSION_NOT_FOUND, Code.REDIS_UNAVAILABLE),
)
async def delete(session_id: str, request: Request, sessions: Here, gate: Gate) -> None:
    """End a session for all participants. Needs the speaker's token or an operator's key; 404 after it has ended."""
    gate.end_session(request, session_id)
    async with redis_problems():
        await sessions.end(session_id)


@router.get(
    "/ice-servers",
    dependencies=[TOKEN],
    openapi_extra={"security": [{}]},
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS),
)
async def ice_servers(request: Request, sessions: Here, gate: Gate) -> IceServers:
    """STUN and TURN servers.

    Servers with credentials are listed for a valid bearer, or for every caller of an open deployment. TURN credentials
    are made for this answer and expire.
    """
    settings, token = sessions.settings, bearer_token(request.headers.get("authorization"))
    if token is None and not settings.demo_open:
        return IceServers(ice_servers=[server for server in settings.ice_servers if server.credential is None])
    user = gate.watcher(request).scope or ""
    return IceServers(ice_servers=ice_servers_for(settings, user, sessions.clock.unix_s()))
