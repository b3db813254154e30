"""The routes of the REST API for avatars."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, TOKEN, TOKEN_PROBLEMS, Access, Gate
from mien_gateway.bundled import BUNDLED_AVATAR_ID
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.portrait_contract import PictureRefused, Portrait, Refusal
from mien_gateway.portrait_process import PortraitFailed, PortraitProcess
from mien_gateway.settings import GatewaySettings
from mien_shared.avatars import (
    AvatarKind,
    AvatarNotFound,
    AvatarRecord,
    AvatarStore,
    AvatarStoreError,
    FaceBox,
    KeypointRow,
)
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock
from mien_shared.http.hang_up import HangUp
from mien_shared.http.problems import Code, Problem, describe, redis_problems

#: Problems that may be answered before the whole body is read.
_BODY_UNREAD = frozenset(
    {
        *KEY_PROBLEMS,
        Code.NOT_MULTIPART,
        Code.TOO_MANY_REQUESTS,
        Code.UPLOAD_TIMEOUT,
        Code.UPLOAD_TOO_LARGE,
        Code.UPLOADS_BUSY,
    }
)
_FIELD = "image"
_UPLOAD_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [_FIELD],
                    "properties": {_FIELD: {"type": "string", "format": "binary"}},
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
    ) -> None:
        self.store = store
        self._registry = registry
        self._access = access
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._under_way = 0
        self._portraits = PortraitProcess(
            settings.portrait_timeout_s, settings.portrait_memory_bytes, settings.max_pixels
        )

    async def upload(self, request: Request) -> AvatarRecord:
        """Make an avatar from an operator's picture; raises Problem."""
        self._access.upload(request)
        try:
            record = await self._upload(request)
        except Problem as problem:
            self._metrics.avatar_uploaded(problem.code)
            raise
        self._metrics.avatar_uploaded("created")
        return record

    async def _upload(self, request: Request) -> AvatarRecord:
        if self._under_way >= self._settings.max_uploads:
            raise Problem(Code.UPLOADS_BUSY, "too many uploads are in progress; try again later")
        self._under_way += 1
        try:
            data = await self._read_field(request)
            portrait = await self._portrait(data)
        finally:
            self._under_way -= 1
        record = portrait.record(secrets.token_urlsafe(12))
        async with _store_problems():
            await self.store.put(record, portrait.png)
        return record

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

    async def _read_field(self, request: Request) -> bytes:
        """The bytes of the file in the form. Never reads a body beyond the limit, with or without Content-Length."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            detail = f"send multipart/form-data with the picture in the field '{_FIELD}'"
            raise Problem(Code.NOT_MULTIPART, detail)
        limit = self._settings.max_upload_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _too_large(limit)
        limited = Request(request.scope, _limited(request, limit))
        try:
            async with (
                asyncio.timeout(self._settings.upload_timeout_s),
                limited.form(max_files=1, max_fields=8) as form,
            ):
                field = form.get(_FIELD)
                if not isinstance(field, UploadFile):
                    raise Problem(Code.MISSING_IMAGE, f"the form has no file in a field named '{_FIELD}'")
                return await field.read()
        except TimeoutError as error:
            raise Problem(Code.UPLOAD_TIMEOUT, "the picture took too long to arrive") from error
        except HTTPException as error:
            raise Problem(Code.MALFORMED_FORM, f"the form cannot be read: {error.detail}") from error
        except ClientDisconnect as error:
            raise Problem(Code.UPLOAD_ABORTED, "the client disconnected before the upload was complete") from error

    async def picture(self, avatar_id: str, request: Request) -> bytes:
        """The still picture as PNG, for operators and for bearers of a token whose session uses it; raises Problem."""
        principal = self._access.watcher(request)
        if principal.scope is not None:
            async with redis_problems():
                session = await self._registry.session(principal.scope)
            if session is None or session.avatar_id != avatar_id:
                raise Problem(Code.TOKEN_NOT_GRANTED, "the token's session does not use this avatar")
        async with _store_problems():
            return await self.store.picture(avatar_id)

    async def aclose(self) -> None:
        await self._portraits.aclose()


def _limited(request: Request, limit: int) -> Receive:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return receive


def _too_large(limit: int) -> Problem:
    return Problem(Code.UPLOAD_TOO_LARGE, f"an upload may have at most {limit} bytes")


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


@router.get("/{avatar_id}", dependencies=[API_KEY], responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, *_READ_PROBLEMS))
async def read(avatar_id: str, request: Request, avatars: Here, gate: Gate) -> Avatar:
    """The record of an avatar. For operators."""
    gate.operator(request)
    return Avatar.of(await stored_avatar(avatars.store, avatar_id))


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
    # An id always names the same picture. Only the bundled avatar's picture may change, with a new version of Mien.
    lifetime_s = 300 if avatar_id == BUNDLED_AVATAR_ID else 86_400
    headers = {"Cache-Control": f"private, max-age={lifetime_s}", "Vary": "Authorization"}
    return Response(png, media_type="image/png", headers=headers)


@router.delete(
    "/{avatar_id}",
    status_code=204,
    dependencies=[API_KEY],
    responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, *_READ_PROBLEMS, Code.AVATAR_BUNDLED),
)
async def delete(avatar_id: str, request: Request, avatars: Here, gate: Gate) -> None:
    """Delete an avatar. Sessions that use it continue. For operators."""
    gate.operator(request)
    if avatar_id == BUNDLED_AVATAR_ID:
        raise Problem(Code.AVATAR_BUNDLED, "the bundled avatar cannot be deleted")
    async with _store_problems():
        await avatars.store.delete(avatar_id)
