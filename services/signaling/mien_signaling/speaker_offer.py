"""Reads a WHIP offer and chooses the sections that we serve: one that sends voice, and one for data channels. Pure.

Either is enough. Everything else is refused in its place, before aiortc sees it (offer_parts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_signaling.offer_parts import (
    Description,
    UnacceptableOffer,
    UnreadableOffer,
    connection_of,
    is_refused,
    is_rtp,
    owns,
    read_description,
    reduced_offer,
    reduced_opus,
)
from mien_signaling.opus_format import OpusFormat, opus_of
from mien_signaling.sdp import IceCandidate, Section

#: What aiortc calls a section without a mid.
_REDUCED_MID = "0"
_DATA_PROTOCOLS = {"UDP/DTLS/SCTP", "TCP/DTLS/SCTP"}
_DATA_FORMAT = "webrtc-datachannel"
_DEFAULT_SCTP_PORT = 5000


@dataclass(frozen=True, slots=True)
class SpeakerOffer:
    """A checked offer.

    voice, data: indexes of the sections that we serve, at least one of them. opus: the voice's format, None without
    voice. carrier, bundle: see Connection. sctp_port: the other side's.
    """

    sections: tuple[Section, ...]
    voice: int | None
    data: int | None
    opus: OpusFormat | None
    carrier: int | None
    bundle: tuple[int, ...]
    ufrags: frozenset[str]
    reduced: str

    @property
    def served(self) -> frozenset[int]:
        """Indexes of the sections that we do not refuse."""
        return frozenset(index for index in (self.voice, self.data, self.carrier) if index is not None)

    def owns(self, candidate: IceCandidate) -> bool:
        """Whether a trickled candidate is for our connection."""
        return owns(candidate, self.sections, {*self.served, *self.bundle})


def parse_speaker_offer(body: str) -> SpeakerOffer:
    """Check a WHIP offer; raises UnreadableOffer or UnacceptableOffer."""
    offered = read_description(body)
    data = next((index for index, one in enumerate(offered.sections) if _is_data(one)), None)
    voice = next((index for index, one in enumerate(offered.sections) if _is_voice(offered, one)), None)
    if voice is None and data is None:
        raise UnacceptableOffer("the offer has neither an audio section that sends Opus nor one for data channels")
    if voice is not None and data is not None and data not in offered.group_of(voice):
        raise UnacceptableOffer("the offer's audio section and its data channels are not in one BUNDLE group")
    main = voice if voice is not None else data
    assert main is not None
    connection = connection_of(offered, main, "audio" if main == voice else "data")
    mids, reduced = [], []
    if voice is not None:
        mids.append(offered.sections[voice].mid or _REDUCED_MID)
        reduced.append(reduced_opus(mids[-1], "sendonly", connection))
    if data is not None:
        mids.append(offered.sections[data].mid or _REDUCED_MID)
        port = _sctp_port(offered.sections[data])
        reduced.append(_reduced_data(mids[-1], port, connection.section_lines()))
    return SpeakerOffer(
        sections=offered.sections,
        voice=voice,
        data=data,
        opus=None if voice is None else opus_of(offered.sections[voice]),
        carrier=connection.carrier,
        bundle=connection.bundle,
        ufrags=offered.ufrags,
        reduced=reduced_offer(offered, mids, reduced),
    )


def _is_voice(offered: Description, section: Section) -> bool:
    return section.kind == "audio" and is_rtp(section) and offered.sends(section) and opus_of(section) is not None


def _is_data(section: Section) -> bool:
    is_channel = section.kind == "application" and section.protocol in _DATA_PROTOCOLS
    return is_channel and section.formats.strip() == _DATA_FORMAT and not is_refused(section)


def _sctp_port(section: Section) -> int:
    text = section.first("sctp-port")
    if text is None:
        return _DEFAULT_SCTP_PORT
    if not text.isdecimal() or len(text) > 5 or not 0 < int(text) < 65_536:
        raise UnreadableOffer("the sctp-port of the offer cannot be read")
    return int(text)


def _reduced_data(mid: str, port: int, connection: list[str]) -> list[str]:
    return [
        f"m=application 9 UDP/DTLS/SCTP {_DATA_FORMAT}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{mid}",
        f"a=sctp-port:{port}",
        *connection,
    ]
