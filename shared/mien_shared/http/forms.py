"""One behaviour for the forms in which a request may come: HEAD like GET, and a path with or without a last slash."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def without_last_slash(scope: Scope) -> Scope:
    """The scope of the same request without one slash at the end of its path. `/` stays."""
    path: str = scope["path"]
    return {**scope, "path": path[:-1]} if len(path) > 1 and path.endswith("/") else scope


class HeadLikeGet:
    """Answers HEAD with the headers of the GET (RFC 9110, section 9.3.2). own: prefixes whose routes answer HEAD."""

    def __init__(self, app: ASGIApp, own: Collection[str] = ()) -> None:
        self._app = app
        self._own = tuple(own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].startswith(self._own):
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)
