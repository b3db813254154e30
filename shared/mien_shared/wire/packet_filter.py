"""What becomes of one uplink's packets. Pure: bytes and the time in, a verdict out.

Newest wins: a packet behind the newest one is of no use, whatever it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mien_shared.wire.motion import MotionFlags, MotionPacket, MotionPacketError, is_valid, sequence_distance


class Verdict(StrEnum):
    """What became of a message; the label it is counted under."""

    ACCEPTED = "accepted"
    NO_OWNER = "no_owner"  # valid, but no generator holds the session
    TEXT = "text"
    LENGTH = "length"
    VERSION = "version"
    FLAGS = "flags"
    NOT_FINITE = "not_finite"
    RANGE = "range"
    DUPLICATE = "duplicate"
    LATE = "late"
    RATE = "rate"


#: A sender sends 30 a second, or 60; twice that is no face. The burst is what gathers while a network stalls.
MAX_PACKETS_PER_S = 120.0
BURST_PACKETS = 120.0

#: How far back packets are told apart as seen or not; further back they are late all the same.
DUPLICATE_WINDOW = 64
#: No network delays a packet by half a minute at 30 fps: a sequence that is this far behind has begun anew.
RESTART_DISTANCE = 1000
#: After this long without a newer packet whatever comes is the newest there is: the sender began anew.
RESTART_SILENCE_S = 0.5

#: Abuse is more than ABUSE_REJECTED rejections among the last ABUSE_WINDOW messages.
ABUSE_WINDOW = 200
ABUSE_REJECTED = 100

_WINDOW_MASK = (1 << DUPLICATE_WINDOW) - 1
_ABUSE_MASK = (1 << ABUSE_WINDOW) - 1


@dataclass(slots=True)
class UplinkFilter:
    """One connection's packets, from its first to its last. Every message goes through `packet` or `text`."""

    now_s: float
    _newest: int | None = None
    _newest_at_s: float = 0.0
    _seen: int = 0
    _tokens: float = BURST_PACKETS
    _history: int = field(default=0)

    def packet(self, data: bytes, now_s: float) -> Verdict:
        """Judge one binary message that arrived at `now_s` (monotonic seconds, never going back)."""
        verdict = self._judge(data, now_s)
        self._remember(verdict is not Verdict.ACCEPTED)
        return verdict

    def text(self, now_s: float) -> Verdict:
        """Judge one text message: none is expected."""
        verdict = Verdict.TEXT if self._take_token(now_s) else Verdict.RATE
        self._remember(True)
        return verdict

    @property
    def abusive(self) -> bool:
        """True once most of what comes is of no use: the connection is to be closed."""
        return self._history.bit_count() > ABUSE_REJECTED

    def _remember(self, rejected: bool) -> None:
        self._history = ((self._history << 1) | rejected) & _ABUSE_MASK

    def _judge(self, data: bytes, now_s: float) -> Verdict:
        if not self._take_token(now_s):
            return Verdict.RATE
        flaw = flaw_of(data)
        if flaw is not None:
            return flaw
        return self._in_order(data[2] | data[3] << 8, bool(data[1] & MotionFlags.NEW_INITIAL_FRAME), now_s)

    def _take_token(self, now_s: float) -> bool:
        self._tokens = min(BURST_PACKETS, self._tokens + (now_s - self.now_s) * MAX_PACKETS_PER_S)
        self.now_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _in_order(self, sequence: int, new_initial_frame: bool, now_s: float) -> Verdict:
        ahead = 1 if self._newest is None else sequence_distance(sequence, self._newest)
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & _WINDOW_MASK if ahead < DUPLICATE_WINDOW else 1
        else:
            behind = -ahead
            seen = behind < DUPLICATE_WINDOW and bool(self._seen >> behind & 1)
            silent = now_s - self._newest_at_s >= RESTART_SILENCE_S
            if behind <= RESTART_DISTANCE and not (silent and (new_initial_frame or not seen)):
                if behind < DUPLICATE_WINDOW:
                    self._seen |= 1 << behind
                return Verdict.DUPLICATE if seen else Verdict.LATE
            self._seen = 1
        self._newest, self._newest_at_s = sequence, now_s
        return Verdict.ACCEPTED


def flaw_of(data: bytes) -> Verdict | None:
    """What is wrong with a packet by itself, None if nothing is."""
    if is_valid(data):
        return None
    try:
        MotionPacket.unpack(data)
    except MotionPacketError as error:
        return Verdict(error.reason)
    return None
