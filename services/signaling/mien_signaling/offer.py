"""Reads a WHEP offer and chooses the sections that we send to: one for video, and one for voice if there is one. Pure.

aiortc gets a reduced offer with only these sections (offer_parts.py). So no section of a stranger can start a receiver,
a decoder or a data channel. The answer to the others is written in answer.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mien_signaling.h264_format import H264Format, NoFormat, choose
from mien_signaling.offer_parts import (
    MAX_MEDIA_SECTIONS,
    Connection,
    Description,
    UnacceptableOffer,
    UnreadableOffer,
    connection_of,
    is_rtp,
    owns,
    read_description,
    reduced_offer,
    reduced_opus,
)
from mien_signaling.opus_format import MID_EXTENSION, OpusFormat, opus_of
from mien_signaling.sdp import IceCandidate, Section

__all__ = ["MAX_MEDIA_SECTIONS", "Offer", "UnacceptableOffer", "UnreadableOffer", "Voice", "parse_offer"]

#: What aiortc calls our section and its formats. The answer has the names of the offer (answer.py).
REDUCED_MID, REDUCED_FORMAT, REDUCED_RTX = "0", 97, 98
SEND_TIME_EXTENSION = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"

# Ids above 14 need headers of another form (RFC 8285, section 4.2).
_EXTENSION = re.compile(r"(?P<id>[1-9]|1[0-4])(?:/sendrecv)? (?P<uri>\S+)(?: .*)?")
_NO_RECEIVER = "the offer has no video section that receives (recvonly or sendrecv)"


@dataclass(frozen=True, slots=True)
class Voice:
    """The section that we send voice to. mid: its name, which its packets may have to contain."""

    index: int
    mid: str
    format: OpusFormat


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer.

    sections: its media sections. chosen: index of the video section that we send to. voice: the section for voice, None
    if there is none. carrier, bundle: see Connection. extensions: header extensions of the video, as "id uri". ufrags:
    every ICE user fragment of the offer. reduced: the offer for aiortc.
    """

    sections: tuple[Section, ...]
    chosen: int
    carrier: int | None
    bundle: tuple[int, ...]
    format: H264Format
    extensions: tuple[str, ...]
    ufrags: frozenset[str]
    reduced: str
    voice: Voice | None = None

    @property
    def served(self) -> frozenset[int]:
        """Indexes of the sections that we do not refuse."""
        voice = None if self.voice is None else self.voice.index
        return frozenset(index for index in (self.chosen, voice, self.carrier) if index is not None)

    def owns(self, candidate: IceCandidate) -> bool:
        """Whether a trickled candidate is for our connection."""
        return owns(candidate, self.sections, {self.chosen, *self.bundle})


def parse_offer(body: str) -> Offer:
    """Check a WHEP offer; raises UnreadableOffer or UnacceptableOffer."""
    offered = read_description(body)
    reasons = []
    for index, section in enumerate(offered.sections):
        if section.kind == "video" and offered.receives(section):
            try:
                return _offer(offered, index)
            except UnacceptableOffer as error:
                reasons.append(error)
    if reasons:
        raise reasons[0]
    raise UnacceptableOffer(_NO_RECEIVER)


def _offer(offered: Description, chosen: int) -> Offer:
    """The offer if this section is the one that we send to. Raises UnacceptableOffer."""
    video = offered.sections[chosen]
    if video.port == 0 and not any(offered.sections[index].port for index in offered.group_of(chosen)):
        raise UnacceptableOffer(_NO_RECEIVER)
    video_format = format_of(video)
    connection = connection_of(offered, chosen, "video")
    extensions, voice = extensions_of(video), _voice(offered, connection)
    return Offer(
        sections=offered.sections,
        chosen=chosen,
        carrier=connection.carrier,
        bundle=connection.bundle,
        format=video_format,
        extensions=extensions,
        ufrags=offered.ufrags,
        reduced=_reduced(offered, video.mid, video_format, extensions, voice, connection),
        voice=voice,
    )


def format_of(video: Section) -> H264Format:
    """The format in which we send to a video section. Raises UnacceptableOffer."""
    if not is_rtp(video):
        raise UnacceptableOffer("the offer's video section has a protocol other than RTP over DTLS")
    try:
        return choose(video)
    except NoFormat as error:
        raise UnacceptableOffer(str(error)) from error


def _voice(offered: Description, connection: Connection) -> Voice | None:
    """The first section that can receive our voice. It must share the video's connection: there is no other."""
    return next((voice for index in sorted(connection.bundle) if (voice := voice_of(offered, index))), None)


def voice_of(offered: Description, index: int) -> Voice | None:
    """This section, if it can receive our voice."""
    section = offered.sections[index]
    has_mux = section.port == 0 or "rtcp-mux" in section.attributes
    is_audio = section.kind == "audio" and is_rtp(section) and has_mux and offered.receives(section)
    opus = opus_of(section) if is_audio else None
    return Voice(index, section.mid, opus) if opus is not None and section.mid is not None else None


def extensions_of(video: Section) -> tuple[str, ...]:
    """The header extensions that we send, as "id uri". Without a mid there is nothing that its extension could say."""
    wanted = {SEND_TIME_EXTENSION} | ({MID_EXTENSION} if video.mid is not None else set())
    found: dict[str, str] = {}
    for text in video.all("extmap"):
        match = _EXTENSION.fullmatch(text)
        if match is not None and match["uri"] in wanted and match["id"] not in found.values():
            found.setdefault(match["uri"], match["id"])
    return tuple(f"{number} {uri}" for uri, number in found.items())


def _reduced(
    offered: Description,
    mid: str | None,
    video_format: H264Format,
    extensions: tuple[str, ...],
    voice: Voice | None,
    connection: Connection,
) -> str:
    """The offer that aiortc gets: a section that receives H.264 in the one form that aiortc knows, and one of Opus."""
    mid = mid or REDUCED_MID
    video = reduced_video(mid, video_format, extensions, connection)
    if voice is None:
        return reduced_offer(offered, [mid], [video])
    return reduced_offer(offered, [mid, voice.mid], [video, reduced_opus(voice.mid, "recvonly", connection)])


def reduced_video(mid: str, video_format: H264Format, extensions: tuple[str, ...], connection: Connection) -> list[str]:
    """A section of video in a reduced offer."""
    has_rtx = video_format.rtx_payload_type is not None
    return [
        f"m=video 9 UDP/TLS/RTP/SAVPF {REDUCED_FORMAT}" + (f" {REDUCED_RTX}" if has_rtx else ""),
        "c=IN IP4 0.0.0.0",
        "a=recvonly",
        f"a=mid:{mid}",
        "a=rtcp-mux",
        *(f"a=extmap:{extension}" for extension in extensions),
        f"a=rtpmap:{REDUCED_FORMAT} H264/90000",
        f"a=fmtp:{REDUCED_FORMAT} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        *([f"a=rtpmap:{REDUCED_RTX} rtx/90000", f"a=fmtp:{REDUCED_RTX} apt={REDUCED_FORMAT}"] if has_rtx else []),
        *connection.section_lines(),
    ]
