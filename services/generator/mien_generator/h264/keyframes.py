"""Decides when to make an IDR. The requests of many viewers are coalesced for one H.264 encoder.

Target: an IDR within two frames after a PLI, unless the last IDR is younger than MIN_INTERVAL_S.
"""

from __future__ import annotations

from collections import Counter

#: Least time between an IDR and the next requested one: one IDR serves all viewers that ask at about the same time.
MIN_INTERVAL_S = 0.5
#: An IDR is made at least this often, for a receiver whose request was lost.
SAFETY_INTERVAL_S = 10.0


class KeyframePolicy:
    """The keyframe state of one stream. Pure: the caller passes the time in seconds of a monotonic clock.

    requests: number of requested IDRs, by reason. sent: number of IDRs that were made.
    """

    def __init__(self, min_interval_s: float = MIN_INTERVAL_S, safety_interval_s: float = SAFETY_INTERVAL_S) -> None:
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self._min_interval_s = min_interval_s
        self._safety_interval_s = safety_interval_s
        self._pending = False
        self._last_s: float | None = None

    def request(self, reason: str) -> None:
        """Request an IDR, for example for a viewer's PLI or FIR, a late joiner or a takeover."""
        self.requests[reason] += 1
        self._pending = True

    def is_due(self, now_s: float) -> bool:
        """Whether the frame encoded now must be an IDR: the first, a requested one, or one for the safety interval."""
        if self._last_s is None:
            return True
        age_s = now_s - self._last_s
        return age_s >= self._safety_interval_s or (self._pending and age_s >= self._min_interval_s)

    def was_sent(self, now_s: float) -> None:
        """The H.264 encoder made an IDR, requested or not. It serves all earlier requests."""
        self.sent += 1
        self._pending = False
        self._last_s = now_s
