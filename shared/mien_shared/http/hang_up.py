"""How to answer a body that is not read to its end, so that the answer arrives.

Closing at once would reset the connection under a client that is still sending, and the reset overtakes the answer;
leaving it open would have the server read on, whatever still comes. So: answer, discard a while, close.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: What is discarded at most: an honest client's too large picture, or two seconds of it.
_DISCARD_BYTES = 128 * 2**20
_DISCARD_S = 2.0


class HangUp(Response):
    """The same answer as the one given, and the end of the connection after it."""

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
