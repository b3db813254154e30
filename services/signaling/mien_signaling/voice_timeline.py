"""Gives the voice of a session one continuous stream of numbers and timestamps, from any number of runs. Pure.

A viewer's receiver knows one stream. Where the speaker connects anew, over this signaling service or another, a new
run begins with other numbers; here it continues where the last run ended. Gaps in a run stay, because the receiver
needs them: it conceals what was lost, or takes it from the next packet's redundancy. Silence stays too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from mien_shared.bus.voice import VoicePacket
from mien_shared.wire.checks import sequence_distance
from mien_signaling.voice_filter import VOICE_CLOCK_HZ

#: A step without a missing packet that is longer than any Opus packet (120 ms): the speaker was silent.
_SILENCE_TICKS = VOICE_CLOCK_HZ * 130 // 1000
_FRAME_TICKS = VOICE_CLOCK_HZ * 20 // 1000
#: The longest pause between two runs that is kept as it was.
_LONGEST_PAUSE_S = 3600.0
#: Runs that another one has replaced. Their last packets may arrive after its first.
_REMEMBERED_RUNS = 8


@dataclass(frozen=True, slots=True)
class TimedVoice:
    """A packet as viewers get it, before each one's own origin is added.

    capture_s: Unix time by the speaker's clock, None while it is not known.
    """

    sequence: int
    timestamp: int
    marker: bool
    level: int | None
    capture_s: float | None
    payload: bytes

    def without_capture(self) -> TimedVoice:
        return replace(self, capture_s=None)


class VoiceTimeline:
    """The numbers of one session."""

    def __init__(self) -> None:
        self._run: bytes | None = None
        self._retired: deque[bytes] = deque(maxlen=_REMEMBERED_RUNS)
        self._sequence_origin = self._timestamp_origin = 0  # added to the run's own
        self._newest = self._newest_timestamp = 0  # of the run
        self._newest_s = 0.0

    def place(self, packet: VoicePacket, now_s: float) -> TimedVoice | None:
        """Number a packet; None for one of a run that has been replaced.

        now_s: its release, monotonic seconds; it bridges the pause before a new run.
        """
        if packet.run in self._retired:
            return None
        if packet.run != self._run:
            marker = self._begin(packet, now_s)
        else:
            ahead = sequence_distance(packet.sequence, self._newest)
            step = _distance(packet.timestamp, self._newest_timestamp)
            marker = packet.marker or (ahead == 1 and step > _SILENCE_TICKS)
            if ahead > 0:
                self._newest, self._newest_timestamp, self._newest_s = packet.sequence, packet.timestamp, now_s
        return TimedVoice(
            (packet.sequence + self._sequence_origin) & 0xFFFF,
            (packet.timestamp + self._timestamp_origin) & 0xFFFF_FFFF,
            marker,
            packet.level,
            None if packet.capture_us is None else packet.capture_us / 1e6,
            packet.payload,
        )

    def _begin(self, packet: VoicePacket, now_s: float) -> bool:
        if self._run is None:
            next_sequence, next_timestamp = 0, 0
        else:
            self._retired.append(self._run)
            pause_s = min(max(0.0, now_s - self._newest_s), _LONGEST_PAUSE_S)
            ticks = max(_FRAME_TICKS, round(pause_s * VOICE_CLOCK_HZ))
            next_sequence = self._newest + self._sequence_origin + 1
            next_timestamp = self._newest_timestamp + self._timestamp_origin + ticks
        self._sequence_origin = next_sequence - packet.sequence
        self._timestamp_origin = next_timestamp - packet.timestamp
        self._run, self._newest, self._newest_timestamp = packet.run, packet.sequence, packet.timestamp
        self._newest_s = now_s
        return True


def _distance(newer: int, older: int) -> int:
    return ((newer - older + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
