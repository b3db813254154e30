"""Errors as RFC 9457 problem+json. This is the one table of their codes, for all services.

A service raises a Problem with one of these codes, and the caller receives the document. A route names the codes that
it may answer with by `describe`, so that OpenAPI and the table cannot differ.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from redis.exceptions import OutOfMemoryError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from mien_shared.bus.connection import BUS_ERRORS

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

#: Seconds after which a caller may try again if the problem can end without the caller's help.
_RETRY_AFTER_S = 2


class Code(StrEnum):
    """Every problem of every service: the last part of the document's `type`, the HTTP status, and the meaning."""

    status: int
    meaning: str

    def __new__(cls, code: str, status: int, meaning: str) -> Code:
        member = str.__new__(cls, code)
        member._value_ = code
        member.status, member.meaning = status, meaning
        return member

    # Any call
    BAD_REQUEST = "bad-request", 400, "the body cannot be read"
    NOT_FOUND = "not-found", 404, "no route has this path"
    METHOD_NOT_ALLOWED = (
        "method-not-allowed",
        405,
        "the route does not take this method; Allow names its methods",
    )
    BODY_TIMEOUT = "body-timeout", 408, "the body took too long to arrive"
    BODY_TOO_LARGE = "body-too-large", 413, "the body is larger than this route takes"
    INVALID_REQUEST = "invalid-request", 422, "a field is missing or has a wrong value"
    TOO_MANY_REQUESTS = "too-many-requests", 429, "the rate limit is reached; try again after Retry-After"
    MISDIRECTED_REQUEST = "misdirected-request", 421, "a demo on one machine is called by another name than loopback's"
    INTERNAL = "internal", 500, "the service failed; its log says why"
    REDIS_UNAVAILABLE = "redis-unavailable", 503, "the session registry does not answer; try again after Retry-After"

    # Who calls
    API_KEY_MISSING = "api-key-missing", 401, "the call needs an operator's API key and has none"
    API_KEY_INVALID = "api-key-invalid", 401, "the bearer is not an API key of this deployment"
    TOKEN_MISSING = "token-missing", 401, "the call needs a session's token and has none"
    TOKEN_INVALID = "token-invalid", 401, "the token has expired, or this deployment did not sign it"
    FOREIGN_ORIGIN = "foreign-origin", 403, "a page of another site may not change anything in a demo"
    TOKEN_NOT_GRANTED = "token-not-granted", 403, "the token is for another session, or does not grant this"

    # Avatars
    AVATAR_NOT_FOUND = "avatar-not-found", 404, "no avatar has this id"
    AVATAR_BUNDLED = "avatar-bundled", 409, "a bundled avatar cannot be deleted"
    AVATAR_LIMIT = "avatar-limit", 409, "the store has as many avatars as allowed; delete one first"
    PHOTOGRAPHS_FORBIDDEN = "photographs-forbidden", 403, "this deployment takes no photographs as avatars"
    CONSENT_MISSING = "consent-missing", 422, "the form does not say whether the person in the picture agreed"
    CONSENT_INVALID = "consent-invalid", 422, "the form's statement about consent cannot be read"
    AVATAR_STORE_UNAVAILABLE = (
        "avatar-store-unavailable", 503, "the avatar store does not answer; try again after Retry-After",
    )  # fmt: skip
    UPLOAD_ABORTED = "upload-aborted", 400, "the client closed the connection before the upload was complete"
    UPLOAD_TIMEOUT = "upload-timeout", 408, "the upload took too long to arrive"
    UPLOAD_TOO_LARGE = "upload-too-large", 413, "the upload has too many bytes"
    TOO_MANY_PIXELS = "too-many-pixels", 413, "the picture has too many pixels"
    TOO_MUCH_MEMORY = "too-much-memory", 413, "the picture needs too much memory to decode"
    NOT_MULTIPART = "not-multipart", 415, "the body is not multipart/form-data"
    NOT_AN_IMAGE = "not-an-image", 415, "the file is not a picture"
    UNSUPPORTED_FORMAT = "unsupported-format", 415, "the picture is not a JPEG, PNG or WebP file"
    ANIMATED_IMAGE = "animated-image", 415, "the picture is animated"
    MISSING_IMAGE = "missing-image", 422, "the form has no file in the expected field"
    MALFORMED_FORM = "malformed-form", 422, "the form cannot be read"
    TRUNCATED_IMAGE = "truncated-image", 422, "the picture is damaged or cut short"
    NO_FACE = "no-face", 422, "the picture shows no face"
    FACE_TOO_SMALL = "face-too-small", 422, "the largest face in the picture is too small"
    UPLOADS_BUSY = "uploads-busy", 503, "too many uploads are in progress; try again after Retry-After"
    PROCESSING_FAILED = "processing-failed", 503, "the picture could not be processed; try again after Retry-After"

    # Sessions
    SESSION_NOT_FOUND = "session-not-found", 404, "no session has this id, or it has ended"
    FULL = "full", 503, "every place is taken; try again after Retry-After"
    NO_GENERATOR = "no-generator", 503, "no generator takes sessions at the moment; try again after Retry-After"

    # Rooms
    ROOM_NOT_FOUND = "room-not-found", 404, "no room has this id, or it has ended"
    PARTICIPANT_NOT_FOUND = "participant-not-found", 404, "no participant has this id, or it has left the room"
    NOT_ADMITTED = "not-admitted", 403, "the participant still waits in the room's lobby"
    ROOM_FULL = "room-full", 409, "the room has as many participants as allowed"
    ROOM_LOCKED = "room-locked", 409, "the room is locked; only participants that are in it may join again"
    ROOM_LIMIT = "room-limit", 409, "the API key has as many rooms as allowed; end one first"
    NO_AVATAR = "no-avatar", 409, "the participant has no avatar, so it has nothing to move and no voice; set one first"
    ROOM_BUSY = "room-busy", 503, "the room changed too often at the same time; try again after Retry-After"
    WEBHOOK_NOT_FOUND = "webhook-not-found", 404, "no webhook has this id"
    WEBHOOK_LIMIT = "webhook-limit", 409, "there are as many webhooks as allowed; delete one first"
    WEBHOOK_REFUSED = "webhook-refused", 422, "the webhook's URL is not one that this deployment sends to"

    # WHEP and WHIP
    UNREADABLE = "unreadable", 400, "the body is not UTF-8"
    UNREADABLE_OFFER = "unreadable-offer", 400, "the body is not an SDP description"
    BAD_FRAGMENT = "bad-fragment", 400, "the body is not a trickle-ICE fragment"
    VIEWER_NOT_FOUND = "viewer-not-found", 404, "no viewer has this id, or the viewer has left"
    VIEWER_ENDED = "viewer-ended", 410, "an operator ended this viewer; its token stays valid"
    VIEWER_REPLACED = "viewer-replaced", 410, "a newer connection of the same participant has replaced this one"
    SPEAKER_NOT_FOUND = "speaker-not-found", 404, "no uplink over WHIP has this id, or it was closed by its speaker"
    UPLINK_ENDED = "uplink-ended", 410, "this service has ended the uplink; the detail says why"
    NO_PUBLICATION = "no-publication", 409, "the session has no video at the moment; try again after Retry-After"
    NO_SFU = "no-sfu", 409, "no signaling service of this deployment has an SFU"
    NO_EGRESS = "no-egress", 404, "no egress of this session is ordered, and none is in progress"
    NO_SUCH_ETAG = "no-such-etag", 412, "sessions have no entity tag, because ICE restarts are not supported"
    WRONG_MEDIA_TYPE = "wrong-media-type", 415, "the body has another media type than this route takes"
    UNACCEPTABLE_OFFER = "unacceptable-offer", 422, "the offer has no section that this service can serve"
    VIEWER_CLOSED = (
        "viewer-closed", 503, "the connection was closed while its offer was answered; try again after Retry-After",
    )  # fmt: skip
    SPEAKER_CLOSED = (
        "speaker-closed", 503, "the connection was closed while its offer was answered; try again after Retry-After",
    )  # fmt: skip
    ICE_RESTART_UNSUPPORTED = "ice-restart-unsupported", 422, "ICE restarts are not supported; the session goes on"

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which a caller may try again, None if a retry would get the same answer."""
        return _RETRY_AFTER_S if self.status == HTTPStatus.SERVICE_UNAVAILABLE or self is Code.NO_PUBLICATION else None

    @property
    def challenge(self) -> str | None:
        """The WWW-Authenticate header of a 401 (RFC 6750, section 3), None for another status."""
        if self.status != HTTPStatus.UNAUTHORIZED:
            return None
        error = ', error="invalid_token"' if self in {Code.API_KEY_INVALID, Code.TOKEN_INVALID} else ""
        return f'Bearer realm="mien"{error}'


class Problem(Exception):
    """An error meant for the caller.

    detail: one sentence for a person. retry_after_s: replaces the value of the code. headers: further headers; the code
    gives Retry-After and WWW-Authenticate.
    """

    def __init__(
        self, code: Code, detail: str, *, retry_after_s: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        if (wait_s := retry_after_s or code.retry_after_s) is not None:
            self.headers["Retry-After"] = str(wait_s)
        if code.challenge is not None:
            self.headers["WWW-Authenticate"] = code.challenge

    @property
    def status(self) -> int:
        return self.code.status

    def response(self) -> Response:
        return _document(self.status, self.code, self.detail, self.headers)


def _document(status: int, code: str, detail: str, headers: dict[str, str]) -> Response:
    content = {
        "type": f"urn:mien:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(content, status, headers, MEDIA_TYPE)


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:mien:problem:avatar-not-found"])
    title: str
    status: int
    detail: str


def describe(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` of a route that may answer with these problems."""
    by_status: dict[int, list[Code]] = defaultdict(list)
    for code in codes:
        by_status[code.status].append(code)
    content = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}}
    return {
        status: {"description": ". ".join(f"`{code}`: {code.meaning}" for code in of_it), "content": content}
        for status, of_it in sorted(by_status.items())
    }


@asynccontextmanager
async def redis_problems() -> AsyncIterator[None]:
    """Turn a failure of Redis into a 503 problem."""
    try:
        yield
    except OutOfMemoryError as error:
        raise Problem(Code.REDIS_UNAVAILABLE, "the session registry is full") from error
    except BUS_ERRORS as error:
        raise Problem(Code.REDIS_UNAVAILABLE, "the session registry does not answer") from error


def _methods(app: FastAPI, path: str) -> list[str]:
    """All methods that the API has for a path. The router's own 405 names those of one route (RFC 9110, 10.2.1)."""
    found = {
        method.upper()
        for template, methods in app.openapi()["paths"].items()
        if compile_path(template)[0].fullmatch(path)
        for method in methods
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


def install(app: FastAPI) -> None:
    """Make every error of this application a problem document."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(app, request.url.path)):
            headers["Allow"] = ", ".join(methods)
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")  # the framework's own: 400, 404, 405
        return _document(error.status_code, code, str(error.detail), headers)

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        where = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return Problem(Code.INVALID_REQUEST, where).response()

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # the client has closed the connection and does not read this

    async def on_crash(_: Request, error: Exception) -> Response:
        logger.error("request failed", exc_info=error)
        return Problem(Code.INTERNAL, "the service failed to answer; its log says why").response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_crash)
