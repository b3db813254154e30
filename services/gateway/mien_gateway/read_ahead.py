"""uvicorn's WebSocket protocol without a pause after every message, and with a bound on what a client is owed.

uvicorn stops reading from a socket after each message and resumes when the application has taken the message. This
costs two system calls, a large part of the cost of a motion packet. An uplink's messages are short and bounded, so a
few of them may wait in a queue. A sender that is faster than the gateway is still paused.

A client that sends pings and reads no pong makes the transport's buffer grow without a limit, and `close()` waits until
that buffer is sent. So such a connection is aborted, and every other one soon after it should have ended.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Half a second of a sender at 30 packets a second, at most 8 KiB. One read may add more messages, as in uvicorn.
MAX_WAITING = 16
#: What may wait to be sent to a client. A sender is owed only pongs, a ping every 20 s and one close.
MAX_OWED_BYTES = 64 * 1024
#: The code with which the application learns that a client did not read. The client gets none.
NOT_READ = 4408
#: How long a client may take to receive the end of a connection, as long as it may take to answer a close.
GOODBYE_S = 10.0


class ReadAheadProtocol(WebSocketsSansIOProtocol):
    """Pauses a connection when MAX_WAITING messages wait for the application; aborts one that is owed too much."""

    _goodbye: TimerHandle | None = None

    def send_receive_event_to_app(self) -> None:
        if self.read_paused or self.queue.qsize() + 1 >= MAX_WAITING:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # so that uvicorn does not pause the connection
        super().send_receive_event_to_app()
        self.read_paused = False

    def handle_ping(self) -> None:
        if self.transport.is_closing():
            self.conn.data_to_send()  # drops the pongs; one read may hold many more pings
            return
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MAX_OWED_BYTES:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": NOT_READ})
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._goodbye is not None:
            self._goodbye.cancel()

    def _abort_later(self) -> None:
        """End the connection even if the client does not read what it is still owed."""
        if self._goodbye is None and not self.disconnected:
            self._goodbye = self.loop.call_later(GOODBYE_S, self.transport.abort)
