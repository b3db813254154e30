"""The routes of the REST API for avatars."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from mien_gateway import consent
from mien_gateway.access import (
    ANY_ROUTE,
    API_KEY,
    COUNTED,
    KEY_PROBLEMS,
    PARTICIPANT,
    TOKEN,
    TOKEN_PROBLEMS,
    Gate,
)
from mien_gateway.avatars import Avatar, AvatarList, Avatars
from mien_gateway.bundled import is_bundled
from mien_gateway.portrait_contract import Refusal
from mien_gateway.uploads import CONSENT_FIELD, CONSENT_NAME_FIELD, FIELD
from mien_shared.avatars import ConsentKind
from mien_shared.http.hang_up import HangUp
from mien_shared.http.problems import Code, Problem, describe

#: Problems that may be answered before the whole body is read.
_BODY_UNREAD = frozenset(
    {
        *KEY_PROBLEMS,
        Code.TOKEN_NOT_GRANTED,
        Code.NOT_ADMITTED,
        Code.PARTICIPANT_NOT_FOUND,
        Code.REDIS_UNAVAILABLE,
        Code.AVATAR_LIMIT,
        Code.AVATAR_STORE_UNAVAILABLE,
        Code.NOT_MULTIPART,
        Code.TOO_MANY_REQUESTS,
        Code.UPLOAD_TIMEOUT,
        Code.UPLOAD_TOO_LARGE,
        Code.UPLOADS_BUSY,
    }
)
_UPLOAD_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD, CONSENT_FIELD],
                    "properties": {
                        FIELD: {"type": "string", "format": "binary"},
                        CONSENT_FIELD: {"type": "string", "enum": list(ConsentKind)},
                        CONSENT_NAME_FIELD: {"type": "string", "maxLength": consent.MAX_NAME_CHARACTERS},
                    },
                }
            }
        },
    }
}


def _avatars(request: Request) -> Avatars:
    avatars: Avatars = request.app.state.avatars
    return avatars


Here = Annotated[Avatars, Depends(_avatars)]

#: A participant's token is enough for what follows, if it grants publish.
_PARTICIPANT_PROBLEMS = (Code.TOKEN_NOT_GRANTED, Code.PARTICIPANT_NOT_FOUND, Code.REDIS_UNAVAILABLE)
_READ_PROBLEMS = (Code.AVATAR_NOT_FOUND, Code.AVATAR_STORE_UNAVAILABLE)

router = APIRouter(prefix="/v1/avatars", tags=["avatars"], dependencies=[COUNTED])


@router.post(
    "",
    status_code=201,
    response_model=Avatar,
    openapi_extra=_UPLOAD_SCHEMA,
    dependencies=[API_KEY, PARTICIPANT],
    responses=describe(
        *ANY_ROUTE,
        *KEY_PROBLEMS,
        *_PARTICIPANT_PROBLEMS,
        Code.NOT_ADMITTED,
        Code.UPLOAD_ABORTED,
        Code.UPLOAD_TIMEOUT,
        Code.UPLOAD_TOO_LARGE,
        Code.NOT_MULTIPART,
        Code.MISSING_IMAGE,
        Code.MALFORMED_FORM,
        Code.CONSENT_MISSING,
        Code.CONSENT_INVALID,
        Code.PHOTOGRAPHS_FORBIDDEN,
        *(Code[refusal.name] for refusal in Refusal),
        Code.AVATAR_LIMIT,
        Code.UPLOADS_BUSY,
        Code.PROCESSING_FAILED,
        Code.AVATAR_STORE_UNAVAILABLE,
    ),
)
async def upload(request: Request, response: Response, avatars: Here) -> Avatar | Response:
    """Make an avatar from the largest face in a picture (JPEG, PNG or WebP).

    For operators, and for participants with the grant publish: theirs is for them alone, and they may have
    `MIEN_MAX_AVATARS_PER_PARTICIPANT` of them.
    """
    try:
        record = await avatars.upload(request)
    except Problem as problem:
        if problem.code in _BODY_UNREAD:
            return HangUp(problem.response())
        raise
    response.headers["Location"] = f"/v1/avatars/{record.avatar_id}"
    return Avatar.of(record)


@router.get(
    "",
    dependencies=[API_KEY, PARTICIPANT],
    responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, *_PARTICIPANT_PROBLEMS, Code.AVATAR_STORE_UNAVAILABLE),
)
async def read_all(request: Request, avatars: Here, gate: Gate) -> AvatarList:
    """All avatars, in the order of their ids, for operators. A participant gets those that it may use.

    These are the bundled ones, and its own uploads.
    """
    return AvatarList(avatars=await avatars.listed(gate.avatar_user(request)))


@router.get(
    "/{avatar_id}",
    dependencies=[TOKEN],
    responses=describe(*ANY_ROUTE, *TOKEN_PROBLEMS, *_READ_PROBLEMS, Code.REDIS_UNAVAILABLE),
)
async def read(avatar_id: str, request: Request, avatars: Here) -> Avatar:
    """The record of an avatar, for those who may see its picture."""
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
    """The 1280x720 still picture: for operators, for bearers of a token of a session that uses it, for participants.

    A participant sees the avatars of its room, the bundled ones, and its own uploads.
    """
    png = await avatars.picture(avatar_id, request)
    # A browser's cache must not keep a face after its avatar is deleted. Bundled avatars show no real person.
    caching = "private, max-age=300" if is_bundled(avatar_id) else "no-store"
    headers = {"Cache-Control": caching, "Vary": "Authorization"}
    return Response(png, media_type="image/png", headers=headers)


@router.delete(
    "/{avatar_id}",
    status_code=204,
    dependencies=[API_KEY, PARTICIPANT],
    responses=describe(
        *(*ANY_ROUTE, *KEY_PROBLEMS, *_PARTICIPANT_PROBLEMS, *_READ_PROBLEMS, Code.AVATAR_BUNDLED),
    ),
)
async def delete(avatar_id: str, request: Request, avatars: Here, gate: Gate) -> None:
    """Delete an avatar and end the sessions that show it. May be repeated after a failure.

    For operators, and for the participant that uploaded it.
    """
    by = gate.avatar_user(request)
    if is_bundled(avatar_id):
        raise Problem(Code.AVATAR_BUNDLED, "a bundled avatar cannot be deleted")
    await avatars.erase_for(by, avatar_id)
