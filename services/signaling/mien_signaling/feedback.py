"""What viewers report, turned into what the encoder is told. Pure: time comes in as an argument.

The bitrate policy is explained in docs/decisions/0005-bitrate-policy.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from mien_shared.bus.messages import KeyframeReason
from mien_shared.media.clock import VIDEO_CLOCK_HZ, from_90k

#: One request a session in this time; the generator coalesces again, over 0.5 s.
KEYFRAME_INTERVAL_S = 0.3
#: A request that brought no IDR is made again: it may have gone to a generator that has died.
KEYFRAME_RETRY_S = 1.0
#: While a request waits for its time, how often to see whether an IDR has made it needless or a new wish urgent.
KEYFRAME_POLL_S = 0.05


@dataclass
class KeyframeRequests:
    """Many wishes for an IDR become one request; the IDR that comes answers all of them."""

    _pending: KeyframeReason | None = None
    _asked: bool = False
    _last_sent_s: float = float("-inf")

    def want(self, reason: KeyframeReason) -> None:
        """Someone needs an IDR. The first reason names the request."""
        if self._pending is None:
            self._pending, self._asked = reason, False

    def answered(self) -> None:
        """An IDR went out to everybody."""
        self._pending = None

    @property
    def pending(self) -> KeyframeReason | None:
        return self._pending

    def due_in_s(self, now_s: float) -> float:
        """How long the pending request has to wait yet; 0 or less: it is due."""
        interval_s = KEYFRAME_RETRY_S if self._asked else KEYFRAME_INTERVAL_S
        return self._last_sent_s + interval_s - now_s

    def sent(self, now_s: float) -> None:
        self._asked, self._last_sent_s = True, now_s


@dataclass(frozen=True, slots=True)
class BitrateLimits:
    """The range of an encoder's target, bits per second."""

    min_bps: int
    start_bps: int
    max_bps: int

    def clamp(self, bps: float) -> int:
        return round(min(max(bps, self.min_bps), self.max_bps))


_SENT_WINDOW_90K = 2 * VIDEO_CLOCK_HZ


class SentRate:
    """What a session's video really takes, over its last two seconds."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int]] = deque()  # when, bytes
        self._bytes = 0

    def add(self, pts_90k: int, size_bytes: int) -> None:
        if self._frames and pts_90k < self._frames[-1][0]:
            self._frames.clear()  # another generator with another clock
            self._bytes = 0
        self._frames.append((pts_90k, size_bytes))
        self._bytes += size_bytes
        while pts_90k - self._frames[0][0] > _SENT_WINDOW_90K:
            self._bytes -= self._frames.popleft()[1]

    def bps(self) -> float:
        """Bits per second; 0 while nothing is known."""
        if len(self._frames) < 2:
            return 0.0
        (first_90k, first_bytes), (last_90k, _) = self._frames[0], self._frames[-1]
        elapsed_s = from_90k(last_90k - first_90k)
        return (self._bytes - first_bytes) * 8 / elapsed_s if elapsed_s else 0.0


#: Loss above which a viewer's target falls, and below which it rises (as in Google's congestion control, section 6 of
#: draft-ietf-rmcat-gcc-02).
HIGH_LOSS, LOW_LOSS = 0.10, 0.02
GROWTH_PER_S = 1.08
#: A target more than this above what is sent is an allowance nobody tried out: it proves nothing, so it does not grow.
UNTRIED = 1.5
#: REMB speaks of congestion only when it lies below what is sent: a receiver never estimates much more than it gets.
CONGESTED, REMB_SHARE = 0.9, 0.9
_LONGEST_STEP_S = 2.0  # silence is no sign that all is well


@dataclass
class ViewerBitrate:
    """What one viewer can take, from its receiver reports and REMB. `sent_bps` is what it is sent at the moment."""

    limits: BitrateLimits
    _target_bps: float = field(init=False)
    _last_report_s: float | None = None

    def __post_init__(self) -> None:
        self._target_bps = self.limits.start_bps

    @property
    def target_bps(self) -> int:
        return self.limits.clamp(self._target_bps)

    def on_loss(self, loss: float, sent_bps: float, now_s: float) -> None:
        """A receiver report: the share of packets lost since the last one, 0 to 1."""
        step_s = 0.0 if self._last_report_s is None else min(now_s - self._last_report_s, _LONGEST_STEP_S)
        self._last_report_s = now_s
        tried_bps = UNTRIED * sent_bps
        if loss > HIGH_LOSS:
            if sent_bps > 0:
                self._target_bps = min(self._target_bps, tried_bps)
            self._target_bps *= 1 - 0.5 * loss
        elif loss < LOW_LOSS and self._target_bps < tried_bps:
            self._target_bps *= GROWTH_PER_S**step_s
        self._target_bps = self.limits.clamp(self._target_bps)

    def on_remb(self, bitrate_bps: int, sent_bps: float) -> None:
        """The receiver's own estimate of what its path carries, bits per second."""
        if bitrate_bps < CONGESTED * sent_bps:
            self._target_bps = self.limits.clamp(min(self._target_bps, REMB_SHARE * bitrate_bps))


#: One viewer in five may be left behind; with fewer than five, none.
LEFT_BEHIND = 5
CHANGE_WORTH_SENDING = 0.07
BITRATE_INTERVAL_S = 1.0


def session_target_bps(viewer_targets_bps: Iterable[int]) -> int | None:
    """One target for all: the 20th percentile by rank (the minimum of up to four); None without viewers."""
    ranked = sorted(viewer_targets_bps)
    return ranked[len(ranked) // LEFT_BEHIND] if ranked else None


@dataclass
class SessionBitrate:
    """Whether a session's target is worth telling its encoder."""

    start_bps: int
    _sent_bps: int = field(init=False)
    _sent_to: str | None = None
    _last_sent_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._sent_bps = self.start_bps

    def to_send(self, target_bps: int, encoder_run: str | None, now_s: float) -> int | None:
        """`target_bps` if it should be sent now. A new run of an encoder starts on its own and is told anew."""
        if now_s - self._last_sent_s < BITRATE_INTERVAL_S:
            return None
        changed = abs(target_bps - self._sent_bps) > CHANGE_WORTH_SENDING * self._sent_bps
        new_encoder = encoder_run is not None and encoder_run != self._sent_to
        return target_bps if changed or new_encoder else None

    def sent(self, target_bps: int, encoder_run: str | None, now_s: float) -> None:
        self._sent_bps, self._sent_to, self._last_sent_s = target_bps, encoder_run, now_s
