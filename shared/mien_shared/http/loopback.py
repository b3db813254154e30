"""What protects a demo on loopback from the pages in the same machine's browser: it has neither keys nor watch tokens.

A page of another site can make the browser send requests to loopback. If the site changes its own DNS name to
127.0.0.1 (DNS rebinding), its page can also read the answers. So the Host must be a name of loopback. A request that
changes something must come from one of our pages, or from a program, which sends no Origin.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from mien_shared.http.hang_up import HangUp
from mien_shared.http.problems import Code, Problem

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class LoopbackOnly:
    """Refuses requests by a foreign name (421), and changes that a page of another site asks for (403)."""

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        """origins: those whose pages may change something, in addition to the pages of the called Host."""
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or (problem := self._problem(scope)) is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await HangUp(problem.response())(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(problem.response())

    def _problem(self, scope: Scope) -> Problem | None:
        headers = HTTPConnection(scope).headers
        host, origin = _host(headers), headers.get("origin")
        if not is_loopback(host):
            return Problem(Code.MISDIRECTED_REQUEST, "this demo answers only by the names of loopback: 127.0.0.1")
        changes = scope["type"] == "websocket" or scope["method"] not in _READING
        if changes and origin is not None and origin not in {f"http://{host}", *self._origins}:
            return Problem(Code.FOREIGN_ORIGIN, "pages of other sites may not change anything here")
        return None


def _host(headers: Headers) -> str:
    hosts = headers.getlist("host")
    return hosts[0].lower() if len(hosts) == 1 else ""


def is_loopback(host: str) -> bool:
    """Whether a Host header (RFC 9110, section 7.2) names loopback: localhost or an address of it, with any port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"].strip("[]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False  # a name of the DNS, whatever address it has at the moment
