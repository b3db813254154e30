"""Requests lost packets again until they arrive, as browsers do (generic NACK, RFC 4585 section 6.2.1).

aiortc 1.16 sends a NACK only when it notices a new gap. If the NACK or the packet that answers it is lost, and nothing
else is lost afterwards, aiortc waits in vain: its jitter buffer holds every later picture until 128 packets have come,
which is four seconds of a speaker's video.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiortc.rtcrtpreceiver import RTCRtpReceiver

#: A packet is requested again after this time. The service sends a packet at most once in a round trip.
_INTERVAL_S = 0.1
#: Requests of one packet, as in libwebrtc. After them, only the next IDR helps.
_MOST_REQUESTS = 10
#: aiortc's record of missing packets, a private field. A test checks that the pinned version has it.
_GENERATOR = "_RTCRtpReceiver__nack_generator"


class RepeatedNacks:
    """Repeats the NACKs of one video receiver. `run` ends only when it is cancelled.

    Does nothing if the installed aiortc keeps its record of missing packets elsewhere.
    """

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._receiver = receiver
        self._send: Callable[[int, list[int]], Awaitable[None]] | None = getattr(receiver, "_send_rtcp_nack", None)
        self._media_ssrc: int | None = None
        self._requests: dict[int, int] = {}
        if self._send is not None:
            receiver._send_rtcp_nack = self._on_gap

    async def _on_gap(self, media_ssrc: int, lost: list[int]) -> None:
        """Replaces the receiver's method: aiortc calls it when it notices a gap."""
        assert self._send is not None
        self._media_ssrc = media_ssrc
        await self._send(media_ssrc, lost)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            generator = getattr(self._receiver, _GENERATOR, None)
            if self._send is None or self._media_ssrc is None or generator is None:
                continue
            self._requests = {seq: self._requests.get(seq, 0) + 1 for seq in generator.missing}
            again = sorted(seq for seq, requests in self._requests.items() if requests <= _MOST_REQUESTS)
            if again:
                await self._send(self._media_ssrc, again)
