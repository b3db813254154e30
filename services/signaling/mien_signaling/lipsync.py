"""Keeps voice and picture of one session together. Pure: the time is an argument.

A picture takes longer than a voice, because its face is drawn and encoded. Two measures bring them together, and
neither is enough alone (docs/decisions/0022-voice-and-lips.md). The voice is held back by what the picture takes
longer. And the sender reports to viewers name the time at which the speaker's device recorded voice and motion, so that
a receiver aligns what is left.

All times of recording are by the speaker's clock. It may be wrong: only differences between them are used, or between
them and our arrival times, where the error is the same for voice and picture.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from mien_shared.media.clock import elapsed_ms_u32, from_90k
from mien_shared.media.frame_trace import FrameTrace

#: What a receiver delays the voice by itself: its buffer for voice is 50 to 70 ms long, the one for pictures 7 ms.
RECEIVER_VOICE_BUFFER_S = 0.06
LONGEST_HOLD_S = 0.4
#: How fast the hold changes while someone speaks, seconds a second. Receivers stretch or shorten voice by so much
#: without a sound.
SLEW = 0.15
#: After this long without voice, the hold changes at once.
PAUSE_S = 0.3
#: Without motion for this long the picture is idle: it shows a default motion, to which no lips belong.
IDLE_S = 0.5
#: The voice's clock and the motion's clock are the same if their delays differ by less than this. A speaker whose
#: sender reports do not name the wall clock (some count from the start of the machine) has none that can be used.
SAME_CLOCK_S = 5.0

_FRAMES = 15


class LipSync:
    """One session, as one signaling service sees it."""

    def __init__(self) -> None:
        # Of the last frames with motion: recording minus media time, delay since the recording, the generator's work.
        self._origins: deque[float] = deque(maxlen=_FRAMES)
        self._delays: deque[float] = deque(maxlen=_FRAMES)
        self._works: deque[float] = deque(maxlen=_FRAMES)
        self._moved_s = float("-inf")
        self._hold_s = 0.0
        self._voice_s: float | None = None

    @property
    def hold_s(self) -> float:
        """How long the newest packet of voice was held."""
        return self._hold_s

    def on_frame(self, trace: FrameTrace | None, pts_90k: int, now_s: float, unix_s: float) -> None:
        """Note a frame that arrived now, by the monotonic and the Unix clock."""
        if trace is None or trace.is_stalled:
            return
        delay_s = elapsed_ms_u32(round(unix_s * 1000), trace.capture_ms) / 1000
        self._origins.append(unix_s - delay_s - from_90k(pts_90k))
        self._delays.append(delay_s)
        self._works.append((trace.uplink_wait_us + trace.face_us + trace.compose_us + trace.encode_us) / 1e6)
        self._moved_s = now_s

    def picture_capture_s(self, pts_90k: int) -> float | None:
        """When the motion of this media time was recorded, Unix seconds by the speaker's clock; None while unknown.

        The middle of the last half second, because single frames wait longer or shorter for their turn.
        """
        return median(self._origins) + from_90k(pts_90k) if self._origins else None

    def is_one_clock(self, capture_s: float | None, unix_s: float) -> bool:
        """Whether a time of recording of voice that arrived now can be compared with the picture's."""
        if capture_s is None or not self._delays:
            return False
        return abs(unix_s - capture_s - median(self._delays)) < SAME_CLOCK_S

    def hold(self, capture_s: float | None, now_s: float, unix_s: float) -> float:
        """How long to hold a packet of voice that arrives now, in seconds.

        capture_s: when it was recorded. While that is unknown, voice and motion are taken to be under way equally long.
        """
        target_s = self._target_s(capture_s, now_s, unix_s)
        if self._voice_s is None or now_s - self._voice_s > PAUSE_S:
            self._hold_s = target_s
        else:
            most_s = SLEW * (now_s - self._voice_s)
            self._hold_s += min(max(target_s - self._hold_s, -most_s), most_s)
        self._voice_s = now_s
        return self._hold_s

    def _target_s(self, capture_s: float | None, now_s: float, unix_s: float) -> float:
        if not self._delays or now_s - self._moved_s > IDLE_S:
            return 0.0
        if capture_s is not None and self.is_one_clock(capture_s, unix_s):
            lead_s = median(self._delays) - (unix_s - capture_s)
        else:
            lead_s = median(self._works)
        return min(max(0.0, lead_s - RECEIVER_VOICE_BUFFER_S), LONGEST_HOLD_S)
