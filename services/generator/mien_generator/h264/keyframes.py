"""When to make an IDR: many viewers' wishes, one encoder (anchors: PLI -> IDR within two frames, coalesced)."""

from __future__ import annotations

from collections import Counter

#: Viewers that ask together are served together: IDRs asked for come no closer than this.
MIN_INTERVAL_S = 0.5
#: An IDR comes at least this often, for a receiver whose request was lost.
SAFETY_INTERVAL_S = 10.0


class KeyframePolicy:
    """Pure state of one stream; every method is told the time, seconds of a monotonic clock.

    requests: how many IDRs were asked for, by reason. sent: how many were made.
    """

    def __init__(self, min_interval_s: float = MIN_INTERVAL_S, safety_interval_s: float = SAFETY_INTERVAL_S) -> None:
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self._min_interval_s = min_interval_s
        self._safety_interval_s = safety_interval_s
        self._pending = False
        self._last_s: float | None = None

    def request(self, reason: str) -> None:
        """Someone needs an IDR: a viewer's PLI or FIR, a late joiner, a takeover."""
        self.requests[reason] += 1
        self._pending = True

    def is_due(self, now_s: float) -> bool:
        """Whether the frame encoded now shall be an IDR: the first, one asked for, or the safety interval's."""
        if self._last_s is None:
            return True
        age_s = now_s - self._last_s
        return age_s >= self._safety_interval_s or (self._pending and age_s >= self._min_interval_s)

    def was_sent(self, now_s: float) -> None:
        """An IDR left the encoder, asked for or not: it serves all that asked before."""
        self.sent += 1
        self._pending = False
        self._last_s = now_s
