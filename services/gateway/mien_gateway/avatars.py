"""The routes of the REST API for avatars."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, TOKEN, TOKEN_PROBLEMS, Access, Gate
from mien_gateway.bundled import BUNDLED_AVATAR_ID
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.portrait_contract import PictureRefused, Portrait, Refusal
from mien_gateway.portrait_process import PortraitFailed, PortraitProcess
from mien_gateway.settings import GatewaySettings
from mien_gateway.uploads import FIELD, UploadBudget, read_picture
from mien_shared.avatars import (
    AvatarKind,
    AvatarNotFound,
    AvatarRecord,
    AvatarStore,
    AvatarStoreError,
    FaceBox,
    KeypointRow,
    StoredAvatar,
)
from mien_shared.bus.registry import Registry
from mien_shared.bus.rooms import Rooms
from mien_shared.clock import Clock
from mien_shared.http.hang_up import HangUp
from mien_shared.http.principal import Principal
from mien_shared.http.problems import Code, Problem, describe, redis_problems

#: Problems that may be answered before the whole body is read.
_BODY_UNREAD = frozenset(
    {
        *KEY_PROBLEMS,
        Code.AVATAR_LIMIT,
        Code.AVATAR_STORE_UNAVAILABLE,
        Code.NOT_MULTIPART,
        Code.TOO_MANY_REQUESTS,
        Code.UPLOAD_TIMEOUT,
        Code.UPLOAD_TOO_LARGE,
        Code.UPLOADS_BUSY,
    }
)
#: Ends the live sessions that show an avatar, on behalf of a principal; returns how many there were.
EndSessions = Callable[[str, Principal | None], Awaitable[int]]

_UPLOAD_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


class Avatar(BaseModel):
    """An avatar. Its face box is in the 1280x720 still picture.

    keypoints: ten rows of x, y, j00, j01, j10, j11 in the face box, [-1, 1]. They are the source pose; a sender chooses
    its initial frame close to it.
    """

    avatar_id: str
    kind: AvatarKind
    width: int
    height: int
    face_box: FaceBox
    keypoints: list[KeypointRow]

    @classmethod
    def of(cls, record: AvatarRecord) -> Avatar:
        return cls(**record.model_dump())


class ListedAvatar(BaseModel):
    """An avatar as the list shows it. expires_at_ms: when it is deleted if no session uses it before; null: never."""

    avatar_id: str
    created_at_ms: int
    used_at_ms: int
    expires_at_ms: int | None


class AvatarList(BaseModel):
    avatars: list[ListedAvatar]


class Avatars:
    """The operations behind the routes."""

    def __init__(
        self,
        settings: GatewaySettings,
        store: AvatarStore,
        registry: Registry,
        access: Access,
        metrics: GatewayMetrics,
        clock: Clock,
        end_sessions: EndSessions,
    ) -> None:
        self.store = store
        self._end_sessions = end_sessions
        self._registry = registry
        self._rooms = Rooms(registry.redis)
        self._access = access
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._budget = UploadBudget(settings.max_uploads, settings.upload_budget_bytes)
        self._creating = 0
        self._portraits = PortraitProcess(
            settings.portrait_timeout_s, settings.portrait_memory_bytes, settings.max_pixels
        )

    async def upload(self, request: Request) -> AvatarRecord:
        """Make an avatar from an operator's picture; raises Problem."""
        by = self._access.upload(request)
        try:
            record = await self._upload(request)
        except Problem as problem:
            self._metrics.avatar_uploaded(problem.code)
            raise
        self._metrics.avatar_uploaded("created")
        audit.avatar_created(by, record.avatar_id)
        return record

    async def _upload(self, request: Request) -> AvatarRecord:
        with self._budget.upload() as share:
            self._creating += 1
            try:
                await self._demand_room()
                portrait = await self._portrait(await read_picture(request, self._settings, share))
                record = portrait.record(secrets.token_urlsafe(12))
                async with _store_problems():
                    await self.store.put(record, portrait.png)
                return record
            finally:
                self._creating -= 1

    async def _demand_room(self) -> None:
        """Raises Problem 409 if the avatars in the store and the uploads in progress here are more than allowed."""
        if self._settings.max_avatars:
            async with _store_problems():
                avatars = len(uploaded(await self.store.stored()))
            if avatars + self._creating > self._settings.max_avatars:
                raise Problem(Code.AVATAR_LIMIT, f"there may be at most {self._settings.max_avatars} avatars")

    async def _portrait(self, data: bytes) -> Portrait:
        started_s = self._clock.monotonic_s()
        try:
            return await self._portraits.make(data)
        except PictureRefused as error:
            raise Problem(Code[error.refusal.name], error.detail) from error
        except PortraitFailed as error:
            raise Problem(Code.PROCESSING_FAILED, str(error)) from error
        finally:
            self._metrics.avatar_processed(self._clock.monotonic_s() - started_s)

    async def listed(self) -> list[ListedAvatar]:
        """All avatars that are whole; raises Problem."""
        async with _store_problems():
            return [self._listed(avatar) for avatar in await self.store.stored() if avatar.is_whole]

    def _listed(self, avatar: StoredAvatar) -> ListedAvatar:
        unused_s = 0 if avatar.avatar_id == BUNDLED_AVATAR_ID else self._settings.avatar_unused_s
        return ListedAvatar(
            avatar_id=avatar.avatar_id,
            created_at_ms=int(avatar.created_unix_s * 1000),
            used_at_ms=int(avatar.used_unix_s * 1000),
            expires_at_ms=int((avatar.used_unix_s + unused_s) * 1000) if unused_s else None,
        )

    async def erase(self, avatar_id: str, by: Principal | None) -> None:
        """Delete the avatar, then end the sessions that show it: their generators keep the face in memory.

        If a part fails, the next call does the rest. Raises Problem: 404 only if there was nothing left to do.
        """
        async with _store_problems():
            try:
                await self.store.delete(avatar_id)
                was_stored = True
            except AvatarNotFound:
                was_stored = False
        async with redis_problems():
            ended = await self._end_sessions(avatar_id, by)
        if not was_stored and not ended:
            raise avatar_not_found()
        audit.avatar_deleted(by, avatar_id)

    async def record(self, avatar_id: str, request: Request) -> AvatarRecord:
        """The record, for those who may see the picture: a sender in a room needs its keypoints. Raises Problem."""
        await self._demand_shown(request, avatar_id)
        return await stored_avatar(self.store, avatar_id)

    async def picture(self, avatar_id: str, request: Request) -> bytes:
        """The still picture as PNG, for operators and for bearers of a token whose session uses it; raises Problem."""
        await self._demand_shown(request, avatar_id)
        async with _store_problems():
            return await self.store.picture(avatar_id)

    async def _demand_shown(self, request: Request, avatar_id: str) -> None:
        principal = self._access.watcher(request)
        async with redis_problems():
            if not await self._shown_to(principal, avatar_id):
                raise Problem(Code.TOKEN_NOT_GRANTED, "the token's session or room does not show this avatar")

    async def _shown_to(self, principal: Principal, avatar_id: str) -> bool:
        """Whether the caller may see an avatar: an operator, or one whose session or room shows it."""
        if principal.scope is None:
            return True
        if principal.room is None:
            session = await self._registry.session(principal.scope)
            return session is not None and session.avatar_id == avatar_id
        participants = (await self._rooms.read(principal.room)).participants
        own = participants.get(principal.scope)
        if own is None:
            return False
        visible = participants.values() if own.is_admitted else [own]
        return any(one.avatar_id == avatar_id for one in visible)

    async def aclose(self) -> None:
        await self._portraits.aclose()


def uploaded(avatars: list[StoredAvatar]) -> list[StoredAvatar]:
    """Those that count towards the limit and can expire: all but the bundled one."""
    return [avatar for avatar in avatars if avatar.avatar_id != BUNDLED_AVATAR_ID]


@asynccontextmanager
async def _store_problems() -> AsyncIterator[None]:
    try:
        yield
    except AvatarNotFound as error:
        raise avatar_not_found() from error
    except AvatarStoreError as error:
        raise Problem(Code.AVATAR_STORE_UNAVAILABLE, str(error)) from error


def avatar_not_found() -> Problem:
    return Problem(Code.AVATAR_NOT_FOUND, "there is no avatar with this id")


async def stored_avatar(store: AvatarStore, avatar_id: str) -> AvatarRecord:
    """An avatar's record; raises Problem."""
    async with _store_problems():
        return await store.record(avatar_id)


def _avatars(request: Request) -> Avatars:
    avatars: Avatars = request.app.state.avatars
    return avatars


Here = Annotated[Avatars, Depends(_avatars)]

_READ_PROBLEMS = (Code.AVATAR_NOT_FOUND, Code.AVATAR_STORE_UNAVAILABLE)

router = APIRouter(prefix="/v1/avatars", tags=["avatars"], dependencies=[COUNTED])


@router.post(
    "",
    status_code=201,
    response_model=Avatar,
    openapi_extra=_UPLOAD_SCHEMA,
    dependencies=[API_KEY],
    responses=describe(
        *ANY_ROUTE,
        *KEY_PROBLEMS,
        Code.UPLOAD_ABORTED,
        Code.UPLOAD_TIMEOUT,
        Code.UPLOAD_TOO_LARGE,
        Code.NOT_MULTIPART,
        Code.MISSING_IMAGE,
        Code.MALFORMED_FORM,
        *(Code[refusal.name] for refusal in Refusal),
        Code.AVATAR_LIMIT,
        Code.UPLOADS_BUSY,
        Code.PROCESSING_FAILED,
        Code.AVATAR_STORE_UNAVAILABLE,
    ),
)
async def upload(request: Request, response: Response, avatars: Here) -> Avatar | Response:
    """Make an avatar from the largest face in a picture (JPEG, PNG or WebP). For operators."""
    try:
        record = await avatars.upload(request)
    except Problem as problem:
        if problem.code in _BODY_UNREAD:
            return HangUp(problem.response())
        raise
    response.headers["Location"] = f"/v1/avatars/{record.avatar_id}"
    return Avatar.of(record)


@router.get("", dependencies=[API_KEY], responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.AVATAR_STORE_UNAVAILABLE))
async def read_all(request: Request, avatars: Here, gate: Gate) -> AvatarList:
    """All avatars, in the order of their ids. For operators."""
    gate.operator(request)
    return AvatarList(avatars=await avatars.listed())


@router.get(
    "/{avatar_id}",
    dependencies=[TOKEN],
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS, *_READ_PROBLEMS, Code.REDIS_UNAVAILABLE),
)
async def read(avatar_id: str, request: Request, avatars: Here) -> Avatar:
    """The record of an avatar, for operators and for bearers of a token of a session or room that shows it."""
    return Avatar.of(await avatars.record(avatar_id, request))


@router.get(
    "/{avatar_id}/picture",
    response_class=Response,
    dependencies=[TOKEN],
    responses={
        200: {"content": {"image/png": {}}},
        **describe(*ANY_ROUTE, *TOKEN_PROBLEMS, *_READ_PROBLEMS, Code.REDIS_UNAVAILABLE),
    },
)
async def picture(avatar_id: str, request: Request, avatars: Here) -> Response:
    """The 1280x720 still picture, for operators and for bearers of a token of a session that uses it."""
    png = await avatars.picture(avatar_id, request)
    # A browser's cache must not keep a face after its avatar is deleted. The bundled avatar shows no real person.
    caching = "private, max-age=300" if avatar_id == BUNDLED_AVATAR_ID else "no-store"
    headers = {"Cache-Control": caching, "Vary": "Authorization"}
    return Response(png, media_type="image/png", headers=headers)


@router.delete(
    "/{avatar_id}",
    status_code=204,
    dependencies=[API_KEY],
    responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, *_READ_PROBLEMS, Code.AVATAR_BUNDLED, Code.REDIS_UNAVAILABLE),
)
async def delete(avatar_id: str, request: Request, avatars: Here, gate: Gate) -> None:
    """Delete an avatar and end the sessions that show it. May be repeated after a failure. For operators."""
    by = gate.operator(request)
    if avatar_id == BUNDLED_AVATAR_ID:
        raise Problem(Code.AVATAR_BUNDLED, "the bundled avatar cannot be deleted")
    await avatars.erase(avatar_id, by)
