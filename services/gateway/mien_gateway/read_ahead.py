"""uvicorn's WebSocket protocol without a pause after every message.

uvicorn stops reading from a socket after each message and resumes when the application has taken the message. This
costs two system calls, a large part of the cost of a motion packet. An uplink's messages are short and bounded, so a
few of them may wait in a queue. A sender that is faster than the gateway is still paused.
"""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Half a second of a sender at 30 packets a second, at most 8 KiB. One read may add more messages, as in uvicorn.
MAX_WAITING = 16


class ReadAheadProtocol(WebSocketsSansIOProtocol):
    """Pauses a connection only when MAX_WAITING messages wait for the application."""

    def send_receive_event_to_app(self) -> None:
        if self.read_paused or self.queue.qsize() + 1 >= MAX_WAITING:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # so that uvicorn does not pause the connection
        super().send_receive_event_to_app()
        self.read_paused = False
