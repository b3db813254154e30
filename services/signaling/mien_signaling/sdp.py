"""Reads SDP: media sections, ICE candidates, and trickle-ICE fragments (RFC 8840, section 9). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

#: We send ICE checks to the addresses in a viewer's candidates, so the number of candidates is limited.
MAX_CANDIDATES = 32

_LINE = re.compile(r"[a-z]=.*")
# media field of RFC 8866, section 5.14. The number of ports means nothing for RTP with rtcp-mux.
_MEDIA = re.compile(r"m=(?P<kind>[!-~]+) (?P<port>\d{1,5})(?:/\d{1,5})? (?P<protocol>[!-~]+) (?P<formats>[!-~][ -~]*)")
# candidate-attribute of RFC 8839, section 5.1: the part that aiortc reads
_CANDIDATE = re.compile(
    r"(?P<sdp>[\w+/=-]{1,32} (?P<component>\d{1,3}) (?P<transport>\w{1,8}) \d{1,10} "
    r"(?P<address>[\w.:%-]{1,255}) (?P<port>\d{1,5}) typ (?:host|srflx|prflx|relay)"
    r"(?: (?:rport \d{1,5}|(?!rport )[!-~]+ [!-~]+))*(?: [!-~]*)?)",
    re.ASCII,
)


class Unreadable(ValueError):
    """The text is not SDP, or a part of it cannot be read."""


class BadFragment(ValueError):
    """The body is not a trickle-ICE fragment. Answered with 400."""


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """One ICE candidate: the text after "candidate:", and the media section that it belongs to."""

    sdp: str
    address: str
    mid: str | None = None
    mline_index: int | None = None

    @property
    def has_address(self) -> bool:
        """Whether we can send a check to it. Names are never looked up, and a scope would choose our interface."""
        try:
            ip_address(self.address)
        except ValueError:
            return False
        return "%" not in self.address


@dataclass(frozen=True, slots=True)
class TrickleFragment:
    """The content of a PATCH. ufrag: None if the sender left it out."""

    ufrag: str | None
    candidates: tuple[IceCandidate, ...]
    end_of_candidates: bool


@dataclass
class Section:
    """A media section, or the part of a description before the first one (kind "session")."""

    kind: str
    port: int = 0
    protocol: str = ""
    formats: str = ""
    attributes: dict[str, list[str]] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        return self.attributes.get(name, [None])[0]

    def all(self, name: str) -> list[str]:
        return self.attributes.get(name, [])

    @property
    def mid(self) -> str | None:
        return self.first("mid")


def sections_of(body: str) -> list[Section]:
    """The session part first, then each media section. Raises Unreadable."""
    lines = [line for line in body.splitlines() if line]
    if not lines or not all(_LINE.fullmatch(line) for line in lines):
        raise Unreadable("this is not SDP")
    sections = [Section("session")]
    for line in lines:
        if line.startswith("m="):
            if (media := _MEDIA.fullmatch(line)) is None:
                raise Unreadable("a media section cannot be read")
            sections.append(Section(media["kind"], int(media["port"]), media["protocol"], media["formats"]))
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            sections[-1].attributes.setdefault(name.strip(), []).append(value.strip())
    return sections


def candidates_of(section: Section, index: int) -> list[IceCandidate]:
    """The candidates of a section that we can use: RTP (component 1) over UDP. Raises Unreadable.

    index: of the media section; a candidate without a section belongs to the first one.
    """
    found = []
    for text in section.all("candidate"):
        match = _CANDIDATE.fullmatch(text)
        if match is None:
            raise Unreadable("a candidate cannot be read")
        is_rtp_over_udp = match["component"] == "1" and match["transport"].lower() == "udp"
        if is_rtp_over_udp and 0 < int(match["port"]) < 65_536:
            mid = section.mid
            found.append(IceCandidate(match["sdp"], match["address"], mid, index if mid is None else None))
    return found


def parse_fragment(body: str) -> TrickleFragment:
    """Read an application/trickle-ice-sdpfrag body; raises BadFragment."""
    try:
        sections = sections_of(body)
    except Unreadable as error:
        raise BadFragment("the body is not an SDP fragment") from error
    try:
        candidates = [
            candidate for index, part in enumerate(sections) for candidate in candidates_of(part, max(0, index - 1))
        ]
    except Unreadable as error:
        raise BadFragment(str(error)) from error
    if len(candidates) > MAX_CANDIDATES:
        raise BadFragment(f"the fragment has more than {MAX_CANDIDATES} candidates")
    ufrag = next((name for section in sections if (name := section.first("ice-ufrag"))), None)
    ended = any("end-of-candidates" in section.attributes for section in sections)
    if ufrag is None and not candidates and not ended:
        raise BadFragment("the fragment has neither candidates nor credentials")
    return TrickleFragment(ufrag, tuple(candidates), ended)
