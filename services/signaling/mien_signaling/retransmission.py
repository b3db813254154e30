"""Decides which packets a viewer gets again, and when. Pure: the time is an argument.

A NACK costs its sender a few bytes and asks for many. So a viewer gets a packet again at most once in a round trip, all
packets together within a share of its stream's bitrate, and one after the other instead of in one turn of the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

#: Packets that are kept for retransmission: about a second of video, or a large IDR.
HISTORY_PACKETS = 128
#: The share of the stream's bitrate that may be sent again. A viewer that loses more is helped by the next IDR and by a
#: lower bitrate.
BUDGET_SHARE = 0.5
#: The budget while the bitrate is not known or very low, bits per second.
LEAST_BUDGET_BPS = 150_000
#: Unused budget is saved for so long: a whole lost IDR can be sent again.
SAVED_BUDGET_S = 1.0
#: How much faster than the stream packets are sent again; libwebrtc's pacer uses 2.5.
PACE = 2.5
LEAST_PACE_BPS = 1_500_000
#: RTP header and its extension, RTX, SRTP's tag, UDP and IPv4: they make a small packet much larger.
OVERHEAD_BYTES = 60
#: The round trip while no report has told it, and the bounds of what a report may tell.
DEFAULT_RTT_S, LEAST_RTT_S, LONGEST_RTT_S = 0.1, 0.02, 1.0


class Ignored(StrEnum):
    """Why a requested packet is not sent again."""

    UNKNOWN = "unknown"  # never sent, or no longer kept
    REPEATED = "repeated"  # requested again within a round trip
    OVER_BUDGET = "over_budget"


@dataclass
class Retransmissions:
    """The packets that one viewer is still to get again, oldest request first."""

    _queue: deque[int] = field(default_factory=deque)
    _waiting: set[int] = field(default_factory=set)
    _sent_s: dict[int, float] = field(default_factory=dict)
    _budget_bits: float = field(default=LEAST_BUDGET_BPS * SAVED_BUDGET_S)
    _refilled_s: float | None = None
    _rtt_s: float = DEFAULT_RTT_S

    def on_rtt(self, rtt_s: float) -> None:
        self._rtt_s = min(max(rtt_s, LEAST_RTT_S), LONGEST_RTT_S)

    def request(self, sequence: int, size_bytes: int, stream_bps: float, now_s: float) -> Ignored | None:
        """Queue a packet of this size, or say why not. stream_bps: what the viewer is sent now."""
        if sequence in self._waiting or now_s - self._sent_s.get(sequence, float("-inf")) < self._rtt_s:
            return Ignored.REPEATED
        self._refill(stream_bps, now_s)
        if self._budget_bits < size_bytes * 8:
            return Ignored.OVER_BUDGET
        self._budget_bits -= size_bytes * 8
        self._queue.append(sequence)
        self._waiting.add(sequence)
        return None

    def next(self, now_s: float) -> int | None:
        """The packet to send now, None if none waits."""
        if not self._queue:
            return None
        sequence = self._queue.popleft()
        self._waiting.discard(sequence)
        self._sent_s.pop(sequence, None)
        self._sent_s[sequence] = now_s  # the newest comes last
        if len(self._sent_s) > HISTORY_PACKETS:
            del self._sent_s[next(iter(self._sent_s))]
        return sequence

    def _refill(self, stream_bps: float, now_s: float) -> None:
        rate_bps = max(LEAST_BUDGET_BPS, BUDGET_SHARE * stream_bps)
        elapsed_s = 0.0 if self._refilled_s is None else now_s - self._refilled_s
        self._refilled_s = now_s
        self._budget_bits = min(self._budget_bits + elapsed_s * rate_bps, rate_bps * SAVED_BUDGET_S)


def wire_bytes(payload: bytes) -> int:
    """What a packet with this payload costs the network."""
    return len(payload) + OVERHEAD_BYTES


def pause_s(size_bytes: int, stream_bps: float) -> float:
    """How long to wait after a packet that was sent again."""
    return size_bytes * 8 / max(LEAST_PACE_BPS, PACE * stream_bps)


def first_of(lost: Iterable[int]) -> list[int]:
    """At most as many different numbers as packets are kept; a longer list is no real receiver's."""
    found: dict[int, None] = {}
    for sequence in lost:
        found[sequence] = None
        if len(found) == HISTORY_PACKETS:
            break
    return list(found)
