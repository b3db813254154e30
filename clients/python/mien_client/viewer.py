"""A WHEP viewer of one session. It does what a browser does, for programs and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from aiortc.mediastreams import MediaStreamError

from mien_client.voice_packets import VoicePacket
from mien_client.whep import ReceivedFrame, ReceivedSound, WhepConnection
from mien_shared.settings import IceServer

_VIEWER_ENDED = "viewer-ended"


class Viewer:
    """Watches one session. An async context manager: iterate over `frames()` and `sound()` inside it.

    on_voice: if given, the session's voice is asked for, and it is called with each packet of it. It must not block.
    """

    def __init__(
        self,
        whep_url: str,
        token: str | None = None,
        ice_servers: Sequence[IceServer] = (),
        on_voice: Callable[[VoicePacket], None] | None = None,
    ) -> None:
        on_packet = None if on_voice is None else lambda slot, packet: on_voice(packet)
        self.connection = WhepConnection(whep_url, token, ice_servers, on_voice=on_packet)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises MienError if the service refuses, Unreachable if it does not answer, NotMien if it does not answer as
        WHEP says, WhepError if the peer connection fails.
        """
        await self.connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def has_voice(self) -> bool:
        """Whether the service sends the session's voice, if there is one."""
        return bool(self.connection.slots) and self.connection.slots[0].sound is not None

    async def frames(self) -> AsyncIterator[ReceivedFrame]:
        """Decoded pictures as they arrive, until the connection ends."""
        assert self.connection.slots, "frames() needs a connected viewer"
        while True:
            try:
                frame = await self.connection.slots[0].next_picture()
            except MediaStreamError:
                return
            yield frame

    async def sound(self) -> AsyncIterator[ReceivedSound]:
        """The decoded voice as it arrives, until the connection ends. Empty if there is none."""
        assert self.connection.slots, "sound() needs a connected viewer"
        slot = self.connection.slots[0]
        while slot.sound is not None:
            try:
                sound = await slot.next_sound()
            except MediaStreamError:
                return
            yield sound

    async def received_bytes(self) -> int:
        """Bytes received on this viewer's transport so far, including RTP and RTCP headers."""
        return await self.connection.received_bytes()

    async def leave(self) -> str | None:
        """Tell the service that this viewer leaves. Returns why the service had ended it before, None if it had not."""
        ended = await self.connection.leave()
        return ended.detail if ended is not None and ended.code == _VIEWER_ENDED else None

    async def aclose(self) -> None:
        """Tell the service that this viewer leaves, then close the connection."""
        await self.connection.aclose()
