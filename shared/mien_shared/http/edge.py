"""ASGI middleware around all routes: security headers on every answer, and a limit on every request's body.

It is outside the framework, so that errors and 404s pass through it too. The proxy, where TLS ends, sets HSTS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien_shared.http.hang_up import HangUp
from mien_shared.http.problems import Code, Problem

#: FastAPI's own pages load their scripts from another origin.
_DOCUMENTATION = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_DOCUMENTATION_POLICY = "frame-ancestors 'none'; base-uri 'none'; object-src 'none'"


class SecurityHeaders:
    """Adds the headers that a route has not set: no sniffing, referrer, caching or foreign content."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"] in _DOCUMENTATION:
                    headers.setdefault("Content-Security-Policy", _DOCUMENTATION_POLICY)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Reads a request's whole body, at most `limit_bytes` within `timeout_s`, before the application sees the request.

    Answers 413 and 408 itself and then closes the connection, because the rest of the body is not read. streaming:
    paths whose routes read their bodies themselves and have their own limits.
    """

    def __init__(
        self, app: ASGIApp, limit_bytes: int, timeout_s: float = 10.0, streaming: Collection[str] = ()
    ) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._streaming = frozenset(streaming)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._streaming:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except Problem as problem:
            await HangUp(problem.response())(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _Replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body, None if the client has disconnected. Raises Problem."""
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"").decode("latin-1")
        if announced.isdecimal() and int(announced) > self._limit_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._limit_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Problem(Code.BODY_TIMEOUT, "the body took too long to arrive") from None

    def _too_large(self) -> Problem:
        return Problem(Code.BODY_TOO_LARGE, f"the body is larger than {self._limit_bytes} bytes")


@dataclass(slots=True)
class _Replay:
    """Gives the application the body that was read, once, and then the events of the connection."""

    body: bytes | None
    receive: Receive

    async def __call__(self) -> Message:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}
