"""Makes the streams of one slot continuous for their receiver while participants change. Pure: the time is an argument.

A receiver knows one stream of pictures and one of voice in each slot, and ties them together by the reports of their
senders. Two things must hold over a change:

- Timestamps and sequence numbers go on: timestamps by the time that has passed, sequence numbers by one.
- The reported times go on too. A report names the time of recording by the clock of the participant's device, and two
  devices' clocks may be seconds apart. libwebrtc fits one line through the last twenty reports, so a jump would spoil
  the sync of voice and lips for twenty seconds. So a slot adds one shift to the times of a participant, the same for
  both streams, by which the reported times follow the last participant's. The first participant's shift is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling.voice_filter import VOICE_CLOCK_HZ
from mien_signaling.voice_timeline import TimedVoice

#: No stream makes smaller steps: a frame at 60 frames a second, a packet of 20 ms.
_LEAST_STEP_S = 0.016
_LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of stream in a slot."""

    name: str
    clock_hz: int


PICTURE, VOICE = Stream("picture", VIDEO_CLOCK_HZ), Stream("voice", VOICE_CLOCK_HZ)


class StreamTimeline:
    """The timestamps of one stream, from any number of sources. They may wrap; the sender takes their lowest 32 bits.

    The first source keeps its own timestamps.
    """

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._offset = 0
        self._newest: tuple[int, float] | None = None
        self._begins = False

    def begin(self) -> None:
        """The next timestamp is another source's."""
        self._begins = self._newest is not None

    def place(self, timestamp: int, now_s: float) -> int:
        """A timestamp of the source in the stream's own time. now_s: when it is sent, monotonic seconds."""
        if self._begins and self._newest is not None:
            self._begins = False
            newest, at_s = self._newest
            pause_s = min(max(_LEAST_STEP_S, now_s - at_s), _LONGEST_PAUSE_S)
            self._offset = newest + round(pause_s * self._clock_hz) - timestamp
        placed = timestamp + self._offset
        if self._newest is None or placed > self._newest[0]:
            self._newest = placed, now_s
        return placed


class SlotClock:
    """The reported times of one slot."""

    def __init__(self) -> None:
        self._shift_s: float | None = 0.0
        self._reported: dict[str, tuple[float, float]] = {}  # by stream: the newest time, and when it was sent

    def begin(self) -> None:
        """Another participant is in the slot."""
        self._shift_s = None if self._reported else 0.0

    def reported_s(self, stream: Stream, capture_s: float, now_s: float) -> float:
        """The time that a report names for what was recorded at `capture_s` and is sent now. Unix seconds.

        The first one of a participant settles its shift: by the same stream's last time if there is one, because the
        pictures of all participants are about equally late, and so are the voices.
        """
        if self._shift_s is None:
            last_s, at_s = self._reported.get(stream.name) or next(iter(self._reported.values()))
            self._shift_s = last_s + (now_s - at_s) - capture_s
        reported_s = capture_s + self._shift_s
        self._reported[stream.name] = reported_s, now_s
        return reported_s


class VoiceContinuity:
    """The numbers and timestamps of one slot's voice.

    Between two packets that are sent, others may have been held back because the participant was not among the loudest,
    or another one was in the slot. The receiver must not take that for loss. What was lost before stays a gap.
    """

    def __init__(self, slot_clock: SlotClock) -> None:
        self._slot_clock = slot_clock
        self._timeline = StreamTimeline(VOICE.clock_hz)
        self._last_sequence: int | None = None
        self._sequence_offset = 0
        self._first: int | None = None  # of the source, after the last pause
        self._last_timestamp: int | None = None  # of the source, unwrapped

    def begin(self) -> None:
        """The next packet is another participant's."""
        self._timeline.begin()
        self._first = self._last_timestamp = None

    def pause(self) -> None:
        """A packet of the participant is not sent."""
        self._first = None

    def place(self, voice: TimedVoice, now_s: float) -> TimedVoice | None:
        """A packet as the receiver gets it; None for one that is older than those after a pause."""
        marker = voice.marker
        if self._first is None:
            self._first, marker = voice.sequence, True
            after = 0 if self._last_sequence is None else self._last_sequence + 1
            self._sequence_offset = after - voice.sequence
        elif _signed(voice.sequence - self._first, 16) < 0:
            return None
        else:
            self._first = voice.sequence if _signed(voice.sequence - self._first, 16) > 0x3FFF else self._first
        sequence = (voice.sequence + self._sequence_offset) & 0xFFFF
        if self._last_sequence is None or _signed(sequence - self._last_sequence, 16) > 0:
            self._last_sequence = sequence
        timestamp = self._timeline.place(self._unwrapped(voice.timestamp), now_s) & 0xFFFF_FFFF
        reported_s = voice.capture_s
        if reported_s is not None:
            reported_s = self._slot_clock.reported_s(VOICE, reported_s, now_s)
        return TimedVoice(sequence, timestamp, marker, voice.level, reported_s, voice.payload)

    def _unwrapped(self, timestamp: int) -> int:
        last = self._last_timestamp
        found = timestamp if last is None else last + _signed(timestamp - last, 32)
        self._last_timestamp = found if last is None else max(last, found)
        return found


def _signed(difference: int, bits: int) -> int:
    """The difference of two numbers of so many bits, the shorter way round."""
    half = 1 << bits - 1
    return (difference + half) % (2 * half) - half
