"""Opens and names the data channel of a speaker (RFC 8832). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

#: The payload protocol identifiers of data channels (RFC 8831, section 8).
DCEP, STRING, BINARY, STRING_EMPTY, BINARY_EMPTY = 50, 51, 53, 56, 57
OPEN, ACK = 3, b"\x02"
MOTION_LABEL = "motion"
#: Unordered, with a limited number of retransmissions.
_UNORDERED_RETRANSMITS = 0x81
_OPEN = Struct("!BBHLHH")


@dataclass(frozen=True, slots=True)
class ChannelOpen:
    """A request to open a channel. label: None if it is not UTF-8."""

    kind: int
    reliability: int
    label: str | None

    @property
    def is_motion(self) -> bool:
        """Whether this is our channel: unordered, and nothing is sent again. A packet that is late is worth nothing."""
        return self.label == MOTION_LABEL and (self.kind, self.reliability) == (_UNORDERED_RETRANSMITS, 0)


def parse_open(data: bytes) -> ChannelOpen | None:
    """A DATA_CHANNEL_OPEN message, None for anything else."""
    if len(data) < _OPEN.size or data[0] != OPEN:
        return None
    _, kind, _, reliability, label_bytes, protocol_bytes = _OPEN.unpack_from(data)
    if len(data) != _OPEN.size + label_bytes + protocol_bytes:
        return None
    try:
        label = data[_OPEN.size : _OPEN.size + label_bytes].decode()
    except UnicodeDecodeError:
        return ChannelOpen(kind, reliability, None)
    return ChannelOpen(kind, reliability, label)
