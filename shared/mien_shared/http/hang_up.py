"""An answer to a request whose body is not read to its end, sent so that the client receives it.

If the server closed at once, the connection would be reset while the client still sends, and the reset would overtake
the answer. If the server left it open, it would read the rest without a limit. So it answers, discards for a while, and
closes.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Limits on what is discarded. They are enough for a too large picture from an ordinary client.
_DISCARD_BYTES = 128 * 2**20
_DISCARD_S = 2.0


class HangUp(Response):
    """Sends the given answer and then closes the connection."""

    def __init__(self, answer: Response) -> None:
        super().__init__(bytes(answer.body), answer.status_code, dict(answer.headers), answer.media_type)
        self.headers["Connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(_DISCARD_S):
                await _discard(receive)
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    left = _DISCARD_BYTES
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message["body"])
