"""Turns viewers' reports into messages for the encoder. Pure: the time is an argument.

The bitrate policy is explained in docs/decisions/0005-bitrate-policy.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from mien_shared.bus.messages import KeyframeReason
from mien_shared.media.clock import VIDEO_CLOCK_HZ, from_90k

#: At most one request per session in this time. The generator coalesces requests again, over 0.5 s.
KEYFRAME_INTERVAL_S = 0.3
#: A request without an IDR in answer is repeated after this time: its generator may have died.
KEYFRAME_RETRY_S = 1.0
#: How often a waiting request is checked: an IDR may have answered it, or a new request may be due earlier.
KEYFRAME_POLL_S = 0.05


@dataclass
class KeyframeRequests:
    """Combines requests for an IDR into one. The next IDR answers all of them."""

    _pending: KeyframeReason | None = None
    _asked: bool = False
    _last_sent_s: float = float("-inf")

    def want(self, reason: KeyframeReason) -> None:
        """Note that a viewer needs an IDR. The request has the first reason."""
        if self._pending is None:
            self._pending, self._asked = reason, False

    def answered(self) -> None:
        """Note that an IDR was sent to all viewers."""
        self._pending = None

    @property
    def pending(self) -> KeyframeReason | None:
        return self._pending

    def due_in_s(self, now_s: float) -> float:
        """How long the pending request must still wait; it is due at 0 or less."""
        interval_s = KEYFRAME_RETRY_S if self._asked else KEYFRAME_INTERVAL_S
        return self._last_sent_s + interval_s - now_s

    def sent(self, now_s: float) -> None:
        self._asked, self._last_sent_s = True, now_s


@dataclass(frozen=True, slots=True)
class BitrateLimits:
    """The range of a bitrate target, bits per second."""

    min_bps: int
    start_bps: int
    max_bps: int

    def clamp(self, bps: float) -> int:
        return round(min(max(bps, self.min_bps), self.max_bps))


_SENT_WINDOW_90K = 2 * VIDEO_CLOCK_HZ


class SentRate:
    """The bitrate at which a session's video is really sent, over its last two seconds."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int]] = deque()  # pts_90k, bytes
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
        """Bits per second; 0 while it is not known."""
        if len(self._frames) < 2:
            return 0.0
        (first_90k, first_bytes), (last_90k, _) = self._frames[0], self._frames[-1]
        elapsed_s = from_90k(last_90k - first_90k)
        return (self._bytes - first_bytes) * 8 / elapsed_s if elapsed_s else 0.0


#: Loss above which a viewer's target falls, and below which it rises (as in Google's congestion control, section 6 of
#: draft-ietf-rmcat-gcc-02).
HIGH_LOSS, LOW_LOSS = 0.10, 0.02
GROWTH_PER_S = 1.08
#: A target above this many times the sent rate was never tried: low loss proves nothing about it, so it does not grow.
UNTRIED = 1.5
#: REMB means congestion only below this share of the sent rate: a receiver cannot estimate much more than it gets.
CONGESTED, REMB_SHARE = 0.9, 0.9
_LONGEST_STEP_S = 2.0  # silence does not mean that all is well


@dataclass
class ViewerBitrate:
    """The bitrate that one viewer can receive, from its reports and REMB. sent_bps: the rate at which it is sent."""

    limits: BitrateLimits
    _target_bps: float = field(init=False)
    _last_report_s: float | None = None

    def __post_init__(self) -> None:
        self._target_bps = self.limits.start_bps

    @property
    def target_bps(self) -> int:
        return self.limits.clamp(self._target_bps)

    def on_loss(self, loss: float, sent_bps: float, now_s: float) -> None:
        """Take a receiver report. loss: the share of packets lost since the last report, 0 to 1."""
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
        """Take the receiver's estimate of the available bitrate, bits per second."""
        if bitrate_bps < CONGESTED * sent_bps:
            self._target_bps = self.limits.clamp(min(self._target_bps, REMB_SHARE * bitrate_bps))


#: One viewer in five may have a lower target than the session. With fewer than five viewers, none may.
LEFT_BEHIND = 5
CHANGE_WORTH_SENDING = 0.07
BITRATE_INTERVAL_S = 1.0


def session_target_bps(viewer_targets_bps: Iterable[int]) -> int | None:
    """One target for all viewers: the 20th percentile by rank (the minimum of up to four), None without viewers."""
    ranked = sorted(viewer_targets_bps)
    return ranked[len(ranked) // LEFT_BEHIND] if ranked else None


@dataclass
class SessionBitrate:
    """Decides when a session's target is sent to its encoder."""

    start_bps: int
    _sent_bps: int = field(init=False)
    _sent_to: str | None = None
    _last_sent_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._sent_bps = self.start_bps

    def to_send(self, target_bps: int, encoder_run: str | None, now_s: float) -> int | None:
        """`target_bps` if it should be sent now, otherwise None.

        A new run of an encoder starts at its default, so it is told the target again.
        """
        if now_s - self._last_sent_s < BITRATE_INTERVAL_S:
            return None
        changed = abs(target_bps - self._sent_bps) > CHANGE_WORTH_SENDING * self._sent_bps
        new_encoder = encoder_run is not None and encoder_run != self._sent_to
        return target_bps if changed or new_encoder else None

    def sent(self, target_bps: int, encoder_run: str | None, now_s: float) -> None:
        self._sent_bps, self._sent_to, self._last_sent_s = target_bps, encoder_run, now_s
