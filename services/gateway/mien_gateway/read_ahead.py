"""The WebSocket side of uvicorn, without a pause after every message.

uvicorn stops reading a socket when it has taken one message from it, and goes on when the application has taken that:
two system calls, a good part of what a motion packet costs here. An uplink's messages are short and bounded, so a few
of them may wait instead; a sender that is faster than we are is still stopped.
"""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Half a second of a sender at 30 packets a second, 8 KiB at most. What one read brings comes on top, as with uvicorn.
MAX_WAITING = 16


class ReadAheadProtocol(WebSocketsSansIOProtocol):
    """Pauses a connection only when MAX_WAITING messages wait for the application."""

    def send_receive_event_to_app(self) -> None:
        if self.read_paused or self.queue.qsize() + 1 >= MAX_WAITING:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # it would pause now
        super().send_receive_event_to_app()
        self.read_paused = False
