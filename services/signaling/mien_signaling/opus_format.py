"""Opus and the header extensions of voice in an offer (RFC 7587). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mien_signaling.sdp import Section

MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"
LEVEL_EXTENSION = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
#: What we say of Opus: in-band redundancy and silence without packets, as the other side's encoder can make them.
PARAMETERS = "minptime=10;useinbandfec=1;usedtx=1"

_CODEC = "opus/48000/2"
#: Packets of these types look like RTCP where both share a port (RFC 5761, section 4).
_RTCP_LIKE = range(64, 96)
# Ids above 14 need headers of another form (RFC 8285, section 4.2).
_EXTENSION = re.compile(r"(?P<id>[1-9]|1[0-4])(?:/(?:sendrecv|sendonly|recvonly))? (?P<uri>\S+)(?: .*)?")


@dataclass(frozen=True, slots=True)
class OpusFormat:
    """Opus in one section, by the offer's numbers. mid_id, level_id: of its header extensions, None without them."""

    payload_type: int
    mid_id: int | None
    level_id: int | None

    def lines(self) -> list[str]:
        """The format in our answer."""
        extensions = ((self.mid_id, MID_EXTENSION), (self.level_id, LEVEL_EXTENSION))
        return [
            *(f"a=extmap:{number} {uri}" for number, uri in extensions if number is not None),
            f"a=rtpmap:{self.payload_type} {_CODEC}",
            f"a=fmtp:{self.payload_type} {PARAMETERS}",
        ]


def opus_of(section: Section) -> OpusFormat | None:
    """The section's first Opus format, None if it has none."""
    named = {number: codec.strip().casefold() for number, _, codec in (t.partition(" ") for t in section.all("rtpmap"))}
    for number in section.formats.split():
        is_number = number.isdecimal() and len(number) < 4 and int(number) < 128
        if is_number and named.get(number) == _CODEC and int(number) not in _RTCP_LIKE:
            ids = _extension_ids(section)
            return OpusFormat(int(number), ids.get(MID_EXTENSION) if section.mid else None, ids.get(LEVEL_EXTENSION))
    return None


def _extension_ids(section: Section) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in section.all("extmap"):
        match = _EXTENSION.fullmatch(text)
        if match is not None and int(match["id"]) not in found.values():
            found.setdefault(match["uri"], int(match["id"]))
    return found
