"""Errors as RFC 9457 problem+json, in one place: services raise a Problem, HTTP sees the document."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An error meant for the caller.

    status: the HTTP status. code: a stable kebab-case name, the last part of the problem's `type`.
    detail: one sentence for a human. headers: Retry-After and the like.
    """

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> Response:
        return JSONResponse(
            {
                "type": f"urn:mien:problem:{self.code}",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
            },
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def unavailable(code: str, detail: str, retry_after_s: int = 2) -> Problem:
    """503 with Retry-After: come back, nothing is wrong with the request."""
    return Problem(503, code, detail, {"Retry-After": str(retry_after_s)})


def _methods(app: FastAPI, path: str) -> list[str]:
    """All methods that the API has for a path. The router's own 405 names those of one route (RFC 9110, 10.2.1)."""
    return sorted(
        {
            method.upper()
            for template, methods in app.openapi()["paths"].items()
            if compile_path(template)[0].fullmatch(path)
            for method in methods
        }
    )


def install(app: FastAPI) -> None:
    """Make every error of this application a problem document."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(app, request.url.path)):
            headers["Allow"] = ", ".join(methods)
        return Problem(error.status_code, code, str(error.detail), headers).response()

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        where = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return Problem(422, "invalid-request", where).response()

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # whoever asked went before the body was there: nobody reads this

    async def on_crash(_: Request, error: Exception) -> Response:
        logger.error("request failed", exc_info=error)
        return Problem(500, "internal", "the service failed to answer; its log says why").response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_crash)
