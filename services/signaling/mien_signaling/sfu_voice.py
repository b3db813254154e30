"""The voice of a publication: the session's packets, and silence where it has none.

An SFU learns of a track by its first packet. LiveKit's ingress drops a publication whose audio sends nothing for ten
seconds, and MediaMTX leaves a track out that has sent nothing for two seconds, for good. A session may have no voice
yet, or never have one. So a publication says silence as an Opus encoder with DTX does: one packet every 400 ms (RFC
6716, section 2.1.9). It is a constant; nothing is encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from mien_shared.clock import Clock
from mien_signaling.offer import Voice
from mien_signaling.passthrough import receive_nothing, report_no_time_before_it_is_known
from mien_signaling.voice_filter import VOICE_CLOCK_HZ
from mien_signaling.voice_passthrough import VoiceSender
from mien_signaling.voice_timeline import TimedVoice

#: 20 ms of silence: CELT, fullband, one channel.
SILENCE = bytes((0xF8, 0xFF, 0xFE))
#: The level of silence (RFC 6464).
_SILENT_LEVEL = 127
INTERVAL_S = 0.4
#: Voice is held back and comes in bursts: silence has timestamps that are older by this, and does not overtake it.
_BEHIND_S = 0.2
_FRAME_S = 0.02


@dataclass
class SilenceFiller:
    """Gives voice and silence one stream of numbers. Pure: times are monotonic seconds."""

    _sequence: int = -1
    _sent_s: float | None = None
    #: The timestamp at a time: of the newest voice, before any voice of the first silence.
    _anchor: tuple[int, float] = (0, 0.0)
    #: What is added to the session's own numbers, None before its first packet.
    _offsets: tuple[int, int] | None = None

    def due_in_s(self, now_s: float) -> float:
        """How long until silence must be said; it is due at 0 or less."""
        return 0.0 if self._sent_s is None else self._sent_s + INTERVAL_S - now_s

    def silence(self, now_s: float) -> TimedVoice:
        """The packet that is due."""
        is_first = self._sent_s is None
        if is_first:
            self._anchor = (0, now_s)
        timestamp = self._timestamp_at(now_s if self._offsets is None else now_s - _BEHIND_S)
        self._sequence, self._sent_s = (self._sequence + 1) & 0xFFFF, now_s
        if self._offsets is not None:
            self._offsets = (self._offsets[0] + 1, self._offsets[1])
        return TimedVoice(self._sequence, timestamp, is_first, _SILENT_LEVEL, None, SILENCE)

    def voice(self, voice: TimedVoice, now_s: float) -> TimedVoice:
        """A packet of the session with the stream's numbers."""
        if self._offsets is None:
            first = 0 if self._sent_s is None else self._timestamp_at(max(now_s, self._sent_s + _FRAME_S))
            self._offsets = (self._sequence + 1 - voice.sequence, first - voice.timestamp)
        sequence = (voice.sequence + self._offsets[0]) & 0xFFFF
        timestamp = (voice.timestamp + self._offsets[1]) & 0xFFFF_FFFF
        if (sequence - self._sequence) & 0xFFFF < 0x8000:  # not one that came out of order
            self._sequence, self._sent_s, self._anchor = sequence, now_s, (timestamp, now_s)
        return replace(voice, sequence=sequence, timestamp=timestamp)

    def _timestamp_at(self, at_s: float) -> int:
        timestamp, anchor_s = self._anchor
        return (timestamp + round((at_s - anchor_s) * VOICE_CLOCK_HZ)) & 0xFFFF_FFFF


class PublishedVoice(VoiceSender):
    """Sends the voice of one publication, and silence from the moment at which it is connected."""

    def __init__(
        self,
        sender: RTCRtpSender,
        voice: Voice,
        on_ready: Callable[[VoiceSender], None],
        on_done: Callable[[VoiceSender], None],
        clock: Clock,
    ) -> None:
        super().__init__(sender, voice, on_ready, on_done)
        self._clock = clock
        self._filler = SilenceFiller()

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """Replaces `_run_rtp`: aiortc starts it when DTLS is ready, and cancels it."""
        silence = asyncio.create_task(self._say_silence(), name="silence")
        try:
            await super().run(codec)
        finally:
            silence.cancel()

    async def send(self, voice: TimedVoice) -> int:
        return await super().send(self._filler.voice(voice, self._clock.monotonic_s()))

    async def _say_silence(self) -> None:
        while True:
            wait_s = self._filler.due_in_s(self._clock.monotonic_s())
            if wait_s > 0:
                await self._clock.sleep(wait_s)
            else:
                try:
                    await super().send(self._filler.silence(self._clock.monotonic_s()))
                except ConnectionError:
                    return


def install(
    transceiver: RTCRtpTransceiver,
    voice: Voice,
    on_ready: Callable[[VoiceSender], None],
    on_done: Callable[[VoiceSender], None],
    clock: Clock,
) -> None:
    """Make a transceiver send a session's voice, and receive nothing. Call it before it starts."""
    sender = PublishedVoice(transceiver.sender, voice, on_ready, on_done, clock)
    transceiver.sender._run_rtp = sender.run
    report_no_time_before_it_is_known(transceiver.sender)
    transceiver.receiver.receive = receive_nothing
