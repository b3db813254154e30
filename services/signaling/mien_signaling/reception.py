"""Statistics of a received stream for our receiver reports (RFC 3550, appendices A.3 and A.8). Pure.

A speaker needs them: by the reported loss, libwebrtc decides how much redundancy Opus puts into its packets.
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_shared.wire.checks import sequence_distance

_MAX_LOST = (1 << 23) - 1


@dataclass(frozen=True, slots=True)
class Report:
    """One report block without the references to sender reports. lost_q8: the share lost since the last one, of 256."""

    ssrc: int
    lost_q8: int
    lost: int
    highest: int
    jitter: int


class Reception:
    """One stream. clock_hz: of its timestamps."""

    def __init__(self, ssrc: int, clock_hz: int) -> None:
        self.ssrc = ssrc
        self._clock_hz = clock_hz
        self._first: int | None = None
        self._highest = 0  # extended by the cycles
        self._received = 0
        self._reported = (0, 0)  # expected and received at the last report
        self._transit: float | None = None
        self._jitter = 0.0

    def packet(self, sequence: int, timestamp: int, now_s: float) -> None:
        """Note a packet that arrived at `now_s`, monotonic seconds."""
        if self._first is None:
            self._first = self._highest = sequence
        self._highest = max(self._highest, self._highest + sequence_distance(sequence, self._highest & 0xFFFF))
        self._received += 1
        transit = (now_s * self._clock_hz - timestamp) % (1 << 32)
        if self._transit is not None:
            change = (transit - self._transit + (1 << 31)) % (1 << 32) - (1 << 31)
            self._jitter += (abs(change) - self._jitter) / 16
        self._transit = transit

    def report(self) -> Report | None:
        """The block for a report that is sent now, None before the first packet."""
        if self._first is None:
            return None
        expected = self._highest - self._first + 1
        since, got = expected - self._reported[0], self._received - self._reported[1]
        self._reported = expected, self._received
        lost_q8 = min(255, max(0, since - got) * 256 // since) if since > 0 else 0
        lost = max(-_MAX_LOST, min(_MAX_LOST, expected - self._received))
        return Report(self.ssrc, lost_q8, lost, self._highest & 0xFFFF_FFFF, min(round(self._jitter), 0xFFFF_FFFF))
