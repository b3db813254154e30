"""When a silent SFU is left, and when the next attempt is made. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

#: A receiver sends a report at least every few seconds while it gets a stream (RFC 3550, section 6.2); those of SFUs
#: come once a second. Without one for this long the SFU is left: ICE notices a killed one only after half a minute.
SILENCE_S = 5.0
#: While no video is sent for this long, a receiver has nothing to report.
_PAUSE_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
#: A connection that lasted this long was a good one: the next failure is again the first.
GOOD_S = 30.0


@dataclass
class ReportWatch:
    """Whether the SFU reports what it receives."""

    _unreported_since_s: float | None = None
    _sent_s: float = float("-inf")

    def sent(self, now_s: float) -> None:
        """Note a frame that was sent."""
        if self._unreported_since_s is None or now_s - self._sent_s > _PAUSE_S:
            self._unreported_since_s = now_s
        self._sent_s = now_s

    def reported(self) -> None:
        """Note a receiver report."""
        self._unreported_since_s = None

    def is_silent(self, now_s: float) -> bool:
        """Whether video has been sent for SILENCE_S without a report."""
        is_sending = now_s - self._sent_s <= _PAUSE_S
        return is_sending and self._unreported_since_s is not None and now_s - self._unreported_since_s > SILENCE_S


@dataclass
class Attempts:
    """How long to wait before the next attempt."""

    failures: int = 0

    def failed(self, connected_s: float) -> None:
        """Note an attempt that failed, or a connection that ended after so many seconds."""
        self.failures = 1 if connected_s >= GOOD_S else self.failures + 1

    def wait_s(self, dice: float, retry_after_s: float = 0.0) -> float:
        """dice: 0 to 1, so that many publications do not come back at one moment. retry_after_s: the SFU's wish."""
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.failures - 1, 10))
        return max(longest_s * (0.5 + 0.5 * dice), retry_after_s)
