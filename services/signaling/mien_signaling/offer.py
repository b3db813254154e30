"""Reads a WHEP offer and chooses the one video section that we send to. Pure.

aiortc never sees the viewer's text. It gets a reduced offer, written here, with only the chosen section. So no section
of a stranger can start a receiver, a decoder or a data channel. The answer to the others is written in answer.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mien_signaling.h264_format import H264Format, NoFormat, choose
from mien_signaling.sdp import MAX_CANDIDATES, IceCandidate, Section, Unreadable, candidates_of, sections_of

MAX_MEDIA_SECTIONS = 8

#: What aiortc calls our section and its formats. The answer has the names of the offer (answer.py).
REDUCED_MID, REDUCED_FORMAT, REDUCED_RTX = "0", 97, 98
MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"
SEND_TIME_EXTENSION = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"

_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~\w-]{1,32}", re.ASCII)
_ICE_TEXT = re.compile(r"[!-~]{1,256}")
_FINGERPRINT = re.compile(r"sha-(?:256|384|512) [0-9a-f:]+", re.IGNORECASE)
# RFC 9429, section 5.1.2: these are answered, if only with DTLS-SRTP.
_PROTOCOL = re.compile(r"(?:(?:UDP|TCP)/D?TLS/)?RTP/S?AVPF?")
# Ids above 14 need headers of another form (RFC 8285, section 4.2).
_EXTENSION = re.compile(r"(?P<id>[1-9]|1[0-4])(?:/sendrecv)? (?P<uri>\S+)(?: .*)?")
_NO_RECEIVER = "the offer has no video section that receives (recvonly or sendrecv)"
#: Who opens the DTLS connection. An offer without it is active (RFC 4145, section 4).
_SETUPS = {"actpass", "active", "passive"}


class UnreadableOffer(ValueError):
    """The body is not an SDP description. Answered with 400."""


class UnacceptableOffer(ValueError):
    """The body is SDP, but we cannot send video to this offer. Answered with 422."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer.

    sections: its media sections. chosen: index of the section that we send to. carrier: index of the section that
    carries the connection for the chosen one (the offerer-tagged section of its BUNDLE group), None if the chosen one
    does so itself. bundle: indexes of the sections of that group, in its order; empty without a group. extensions:
    header extensions that we send, as "id uri". ufrags: every ICE user fragment of the offer. reduced: the offer for
    aiortc.
    """

    sections: tuple[Section, ...]
    chosen: int
    carrier: int | None
    bundle: tuple[int, ...]
    format: H264Format
    extensions: tuple[str, ...]
    ufrags: frozenset[str]
    reduced: str

    def owns(self, candidate: IceCandidate) -> bool:
        """Whether a trickled candidate is for our connection.

        Every section of the BUNDLE group may name it: many clients trickle under the group's first section only.
        """
        mine = {self.chosen, *self.bundle}
        if candidate.mid is None:
            # Without any section in the fragment the index is 0, which may be a section that we refused.
            return candidate.mline_index in mine or candidate.mline_index == 0
        return candidate.mid in {self.sections[index].mid for index in mine}


def parse_offer(body: str) -> Offer:
    """Check a WHEP offer; raises UnreadableOffer or UnacceptableOffer.

    Candidates with a name instead of an address (mDNS) are left out. The name cannot be resolved outside the viewer's
    network, and the address becomes known from the viewer's first check (RFC 8445, section 7.3.1.3).
    """
    try:
        session, *sections = sections_of(body)
    except Unreadable as error:
        raise UnreadableOffer("the body is not an SDP description") from error
    if next(line for line in body.splitlines() if line) != "v=0":
        raise UnreadableOffer("the body is not an SDP description")
    if not sections:
        raise UnacceptableOffer("the offer has no media section")
    if len(sections) > MAX_MEDIA_SECTIONS:
        raise UnacceptableOffer(f"the offer has more than {MAX_MEDIA_SECTIONS} media sections")
    bundles = _bundles(session, sections)
    candidates = [_candidates(section, index) for index, section in enumerate(sections)]
    reasons = []
    for index, section in enumerate(sections):
        if section.kind == "video" and _receives(section, session):
            try:
                return _offer(session, sections, index, bundles, candidates)
            except UnacceptableOffer as error:
                reasons.append(error)
    if reasons:
        raise reasons[0]
    raise UnacceptableOffer(_NO_RECEIVER)


def _offer(
    session: Section,
    sections: list[Section],
    chosen: int,
    bundles: list[list[int]],
    candidates: list[list[IceCandidate]],
) -> Offer:
    """The offer if this section is the one that we send to. Raises UnacceptableOffer."""
    video = sections[chosen]
    bundle = next((group for group in bundles if chosen in group), [])
    tagged = next((index for index in bundle if sections[index].port != 0), None)
    if video.port == 0 and tagged is None:
        raise UnacceptableOffer(_NO_RECEIVER)
    video_format = _format(video)
    bundled = [video] if tagged is None else [video, sections[tagged]]
    # RTP and RTCP of a bundle-only section always share a port (RFC 9143, section 9.3).
    if video.port != 0 and not any("rtcp-mux" in section.attributes for section in bundled):
        raise UnacceptableOffer("the offer's video section has no rtcp-mux")
    carrier = tagged if tagged is not None and tagged != chosen and _can_be_inactive(sections[tagged]) else None
    source = chosen if tagged is None or (carrier is None and video.port != 0) else tagged
    connection = _connection([sections[source], session, *bundled])
    extensions = _extensions(video)
    return Offer(
        sections=tuple(sections),
        chosen=chosen,
        carrier=carrier,
        bundle=tuple(bundle),
        format=video_format,
        extensions=extensions,
        ufrags=frozenset(name for part in (session, *sections) for name in part.all("ice-ufrag")),
        reduced=_reduced(
            "ice-lite" in session.attributes,
            video.mid,
            video_format,
            extensions,
            connection,
            [candidate for candidate in candidates[source] if candidate.has_address],
        ),
    )


def _format(video: Section) -> H264Format:
    if _PROTOCOL.fullmatch(video.protocol) is None:
        raise UnacceptableOffer("the offer's video section has a protocol other than RTP over DTLS")
    try:
        return choose(video)
    except NoFormat as error:
        raise UnacceptableOffer(str(error)) from error


def _can_be_inactive(section: Section) -> bool:
    """Whether we can keep a section without media. One for data has no such state."""
    return section.kind in {"audio", "video"} and _PROTOCOL.fullmatch(section.protocol) is not None


def _receives(section: Section, session: Section) -> bool:
    if section.port == 0 and "bundle-only" not in section.attributes:
        return False
    directions = {"sendrecv", "sendonly", "recvonly", "inactive"}
    named = directions & section.attributes.keys() or directions & session.attributes.keys()
    return not named & {"sendonly", "inactive"}


def _bundles(session: Section, sections: list[Section]) -> list[list[int]]:
    """The BUNDLE groups, each as indexes of its sections. Raises UnreadableOffer or UnacceptableOffer."""
    mids = [section.mid for section in sections]
    named = [mid for mid in mids if mid is not None]
    if not all(_TOKEN.fullmatch(mid) for mid in named):
        raise UnreadableOffer("a mid of the offer cannot be read")
    if len(named) != len(set(named)):
        raise UnreadableOffer("two media sections of the offer have the same mid")
    groups = [words[1:] for text in session.all("group") if (words := text.split()) and words[0] == "BUNDLE"]
    if any(mid not in named for group in groups for mid in group):
        raise UnacceptableOffer("the offer's BUNDLE group names a media section that the offer does not have")
    return [[mids.index(mid) for mid in dict.fromkeys(group)] for group in groups]


def _candidates(section: Section, index: int) -> list[IceCandidate]:
    if len(section.all("candidate")) > MAX_CANDIDATES:
        raise UnacceptableOffer(f"the offer has more than {MAX_CANDIDATES} candidates per media section")
    try:
        return candidates_of(section, index)
    except Unreadable as error:
        raise UnreadableOffer("a candidate of the offer cannot be read") from error


def _connection(transport: list[Section]) -> list[str]:
    """The lines of ICE and DTLS. transport: where to look for them, in this order."""

    def find(name: str) -> list[str]:
        return next((values for section in transport if (values := section.all(name))), [])

    for name in ("ice-ufrag", "ice-pwd", "fingerprint"):
        if not find(name):
            raise UnacceptableOffer(f"the offer's video section has no {name}")
    ufrag, password, setup = find("ice-ufrag")[0], find("ice-pwd")[0], (find("setup") or ["active"])[0]
    if not (_ICE_TEXT.fullmatch(ufrag) and _ICE_TEXT.fullmatch(password)):
        raise UnreadableOffer("the ICE credentials of the offer cannot be read")
    fingerprints = [text for text in find("fingerprint") if _FINGERPRINT.fullmatch(text)]
    if not fingerprints:
        raise UnacceptableOffer("the offer has no fingerprint of sha-256, sha-384 or sha-512")
    if setup not in _SETUPS:
        raise UnacceptableOffer("the offer's setup attribute is not actpass, active or passive")
    return [
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        *(f"a=fingerprint:{text}" for text in fingerprints),
        f"a=setup:{setup}",
    ]


def _extensions(video: Section) -> tuple[str, ...]:
    """The header extensions that we send, as "id uri". Without a mid there is nothing that its extension could say."""
    wanted = {SEND_TIME_EXTENSION} | ({MID_EXTENSION} if video.mid is not None else set())
    found: dict[str, str] = {}
    for text in video.all("extmap"):
        match = _EXTENSION.fullmatch(text)
        if match is not None and match["uri"] in wanted and match["id"] not in found.values():
            found.setdefault(match["uri"], match["id"])
    return tuple(f"{number} {uri}" for uri, number in found.items())


def _reduced(
    is_lite: bool,
    mid: str | None,
    video_format: H264Format,
    extensions: tuple[str, ...],
    connection: list[str],
    candidates: list[IceCandidate],
) -> str:
    """The offer that aiortc gets: one section that receives H.264 in the one form that aiortc knows.

    It never says end-of-candidates: aiortc would fail as soon as its checks have failed, but the viewer's own checks
    may still come (RFC 8863). The limit is connect_timeout_s.
    """
    mid = mid or REDUCED_MID
    has_rtx = video_format.rtx_payload_type is not None
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        *(["a=ice-lite"] if is_lite else []),
        f"a=group:BUNDLE {mid}",
        f"m=video 9 UDP/TLS/RTP/SAVPF {REDUCED_FORMAT}" + (f" {REDUCED_RTX}" if has_rtx else ""),
        "c=IN IP4 0.0.0.0",
        "a=recvonly",
        f"a=mid:{mid}",
        "a=rtcp-mux",
        *(f"a=extmap:{extension}" for extension in extensions),
        f"a=rtpmap:{REDUCED_FORMAT} H264/90000",
        f"a=fmtp:{REDUCED_FORMAT} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        *([f"a=rtpmap:{REDUCED_RTX} rtx/90000", f"a=fmtp:{REDUCED_RTX} apt={REDUCED_FORMAT}"] if has_rtx else []),
        *connection,
        *(f"a=candidate:{candidate.sdp}" for candidate in candidates),
    ]
    return "\r\n".join(lines) + "\r\n"
