"""The voice of one connection: muted when it has to be, and with the times of its recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender


class OutgoingVoice(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """What the source gives, and nothing while it is muted.

    aiortc stops the track of a connection that ends; this one keeps the source alive for the next connection.
    first_pts, last_pts: of the frames that were given.
    """

    kind = "audio"

    def __init__(self, source: MediaStreamTrack, is_muted: Callable[[], bool]) -> None:
        super().__init__()
        self._source = source
        self._is_muted = is_muted
        self.first_pts: int | None = None
        self.last_pts = 0

    async def recv(self) -> Any:
        while True:
            frame = await self._source.recv()
            if not self._is_muted():
                self.last_pts = frame.pts
                self.first_pts = frame.pts if self.first_pts is None else self.first_pts
                return frame


def send_in_time(sender: RTCRtpSender, voice: OutgoingVoice, on_voice: Callable[[bytes, int], None] | None) -> None:
    """Let an aiortc sender use the times of the recording, and tell of what it has encoded.

    aiortc counts samples. Time that a voice leaves out, because it was muted or late, would be missing from RTP's
    time, and voice and lips would drift apart. Its method is private; tests of mute need it.
    """
    encode = sender._next_encoded_frame

    async def encode_in_time(codec: object) -> object:
        frame = await encode(codec)
        if frame is not None:
            frame.timestamp = voice.last_pts - (voice.first_pts or 0)
            if on_voice is not None:
                for payload in frame.payloads:
                    on_voice(payload, voice.last_pts)
        return frame

    sender._next_encoded_frame = encode_in_time
