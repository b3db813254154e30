"""CORS for WHEP and WHIP, and the count of their answers."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PREFLIGHT_LIFETIME_S = 7200
_COUNTED_METHODS = frozenset({"POST", "PATCH", "DELETE", "OPTIONS", "HEAD", "GET", "PUT"})


class CrossOrigin:
    """Adds CORS headers (Fetch, section 3.2) to every answer of one protocol, including errors, and counts the answers.

    prefix: of its paths. count: takes the method and the status of each answer.
    """

    def __init__(self, app: ASGIApp, prefix: str, origins: list[str], count: Callable[[str, int], None]) -> None:
        self._app = app
        self._prefix = prefix
        self._origins = frozenset(origins)
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        origin = asked.get(b"origin", b"").decode("latin-1")
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in asked

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _COUNTED_METHODS else "other"
                self._count(method, message["status"])
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if origin in self._origins:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Accept-Patch, Retry-After"
                    if is_preflight:
                        headers["Access-Control-Allow-Methods"] = "POST, PATCH, DELETE, OPTIONS"
                        headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-Match"
                        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_LIFETIME_S)
            await send(message)

        await self._app(scope, receive, send_with_headers)
