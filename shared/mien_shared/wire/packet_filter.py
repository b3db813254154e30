"""Decides which packets of one uplink are forwarded. Pure: bytes and the time in, a verdict out.

The gateway applies it to every uplink. The newest packet wins: a packet that is older than the newest one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mien_shared.wire.checks import check, sequence_distance
from mien_shared.wire.contract import MotionPacketError, PacketHeader


class PacketVerdict(StrEnum):
    """The result for one message. Its value is the metric label that counts the message."""

    ACCEPTED = "accepted"
    NO_OWNER = "no_owner"  # the packet is valid, but no generator holds the session
    TEXT = "text"
    LENGTH = "length"
    VERSION = "version"
    FLAGS = "flags"
    NOT_FINITE = "not_finite"
    RANGE = "range"
    DUPLICATE = "duplicate"
    LATE = "late"
    RATE = "rate"


#: A sender sends 30 or 60 packets a second; more than 120 is not a real sender. The burst covers a network stall.
MAX_PACKETS_PER_S = 120.0
BURST_PACKETS = 120.0

#: A duplicate is recognised this many packets back. An older packet counts as late.
DUPLICATE_WINDOW = 64
#: At 30 fps this is half a minute, and no network delays a packet that long: the sender has restarted.
RESTART_DISTANCE = 1000
#: After this long without a newer packet, an unseen older packet counts as the newest: the sender has restarted.
RESTART_SILENCE_S = 0.5

#: Abuse is more than ABUSE_REJECTED rejections among the last ABUSE_WINDOW messages.
ABUSE_WINDOW = 200
ABUSE_REJECTED = 100

_WINDOW_MASK = (1 << DUPLICATE_WINDOW) - 1
_ABUSE_MASK = (1 << ABUSE_WINDOW) - 1


@dataclass(slots=True)
class PacketFilter:
    """The filter of one connection. Every message goes through `packet` or `text`.

    header: the header of the last accepted packet.
    """

    now_s: float
    header: PacketHeader | None = None
    _newest: int | None = None
    _newest_at_s: float = 0.0
    _seen: int = 0
    _tokens: float = BURST_PACKETS
    _history: int = field(default=0)

    def packet(self, data: bytes, now_s: float) -> PacketVerdict:
        """Judge one binary message that arrived at `now_s` (monotonic seconds, never going back)."""
        verdict = self._judge(data, now_s)
        self._remember(verdict is not PacketVerdict.ACCEPTED)
        return verdict

    def text(self, now_s: float) -> PacketVerdict:
        """Judge one text message. An uplink has no text messages."""
        verdict = PacketVerdict.TEXT if self._take_token(now_s) else PacketVerdict.RATE
        self._remember(True)
        return verdict

    @property
    def abusive(self) -> bool:
        """True once most of the last messages were refused: the caller closes the connection."""
        return self._history.bit_count() > ABUSE_REJECTED

    def _remember(self, rejected: bool) -> None:
        self._history = ((self._history << 1) | rejected) & _ABUSE_MASK

    def _judge(self, data: bytes, now_s: float) -> PacketVerdict:
        if not self._take_token(now_s):
            return PacketVerdict.RATE
        try:
            header = check(data)
        except MotionPacketError as error:
            return PacketVerdict(error.reason)
        verdict = self._in_order(header.sequence, not header.may_be_dropped, now_s)
        if verdict is PacketVerdict.ACCEPTED:
            self.header = header
        return verdict

    def _take_token(self, now_s: float) -> bool:
        self._tokens = min(BURST_PACKETS, self._tokens + (now_s - self.now_s) * MAX_PACKETS_PER_S)
        self.now_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _in_order(self, sequence: int, new_initial_frame: bool, now_s: float) -> PacketVerdict:
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
                return PacketVerdict.DUPLICATE if seen else PacketVerdict.LATE
            self._seen = 1
        self._newest, self._newest_at_s = sequence, now_s
        return PacketVerdict.ACCEPTED
