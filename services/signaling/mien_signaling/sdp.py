"""The parts of SDP that WHEP needs: checks of an offer, and trickle-ICE fragments (RFC 8840, section 9). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

MAX_MEDIA_SECTIONS = 8
#: We send ICE checks to the addresses in a viewer's candidates, so the number of candidates is limited.
MAX_CANDIDATES = 32

_LINE = re.compile(r"[a-z]=.*")
_H264 = re.compile(r"\d+ H264/90000", re.IGNORECASE)
# candidate-attribute of RFC 8839, section 5.1: the part that aiortc reads
_CANDIDATE = re.compile(
    r"candidate:(?P<sdp>[\w+/=-]{1,32} (?P<component>\d{1,3}) (?P<transport>\w{1,8}) \d{1,10} "
    r"(?P<address>[\w.:%-]{1,255}) \d{1,5} typ (?:host|srflx|prflx|relay)"
    r"(?: (?:rport \d{1,5}|(?!rport )[!-~]+ [!-~]+))*(?: [!-~]*)?)",
    re.ASCII,
)
_RELATED = re.compile(r"raddr \S+ rport \d+")
_NIL = {4: "0.0.0.0", 6: "::"}


class UnreadableOffer(ValueError):
    """The body is not an SDP description. Answered with 400."""


class UnacceptableOffer(ValueError):
    """The body is SDP, but we cannot send video to this offer. Answered with 422."""


class BadFragment(ValueError):
    """The body is not a trickle-ICE fragment. Answered with 400."""


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """One ICE candidate: the text after "candidate:", and the media section that it belongs to."""

    sdp: str
    address: str
    mid: str | None
    mline_index: int | None

    @property
    def is_mdns(self) -> bool:
        return self.address.endswith(".local")


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer: its text without mDNS candidates, and the ICE user fragment of its first media section."""

    sdp: str
    ufrag: str


@dataclass(frozen=True, slots=True)
class TrickleFragment:
    """The content of a PATCH. ufrag: None if the sender left it out."""

    ufrag: str | None
    candidates: tuple[IceCandidate, ...]
    end_of_candidates: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """The address to announce instead of the host's addresses behind a 1:1 NAT (a container, a VM in a cloud).

    public: the address at which viewers reach this service; the NAT keeps port numbers. local: the host's address to
    which the NAT forwards, None if it is not known.
    """

    public: IPv4Address | IPv6Address
    local: IPv4Address | IPv6Address | None = None


@dataclass
class _Section:
    kind: str
    port: str
    attributes: dict[str, list[str]] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        return self.attributes.get(name, [None])[0]

    @property
    def receives(self) -> bool:
        return self.port != "0" and "sendonly" not in self.attributes and "inactive" not in self.attributes


def parse_offer(body: str) -> Offer:
    """Check a WHEP offer; raises UnreadableOffer or UnacceptableOffer.

    mDNS candidates are removed. Their names cannot be resolved outside the viewer's network, a lookup delays the answer
    by a second, and the address becomes known from the viewer's first check (RFC 8445, 7.3.1.3).
    """
    lines = [line for line in body.splitlines() if line]
    if not lines or lines[0] != "v=0" or not all(_LINE.fullmatch(line) for line in lines):
        raise UnreadableOffer("the body is not an SDP description")
    session, *sections = _sections(lines)
    if not sections:
        raise UnacceptableOffer("the offer has no media section")
    if len(sections) > MAX_MEDIA_SECTIONS:
        raise UnacceptableOffer(f"the offer has more than {MAX_MEDIA_SECTIONS} media sections")
    video = next((section for section in sections if section.kind == "video"), None)
    if video is None or not video.receives:
        raise UnacceptableOffer("the offer has no video section that receives (recvonly or sendrecv)")
    if not any(_H264.fullmatch(codec) for codec in video.attributes.get("rtpmap", [])):
        raise UnacceptableOffer("the offer has no H264 video codec")
    ufrag = sections[0].first("ice-ufrag") or session.first("ice-ufrag")
    for section in sections:
        for name in ("ice-ufrag", "ice-pwd", "fingerprint"):
            if not (section.first(name) or session.first(name)):
                raise UnacceptableOffer(f"the offer's {section.kind} section has no {name}")
        if section.kind in {"audio", "video"} and "rtcp-mux" not in section.attributes:
            raise UnacceptableOffer(f"the offer's {section.kind} section has no rtcp-mux")
    assert ufrag is not None  # the first section or the session part has one
    mids = {section.first("mid") for section in sections}
    bundles = [group.split() for group in session.attributes.get("group", []) if group.startswith("BUNDLE")]
    if any(mid not in mids for bundle in bundles for mid in bundle[1:]):
        raise UnacceptableOffer("the offer's BUNDLE group names a media section that the offer does not have")
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    if len(candidates) > MAX_CANDIDATES * len(sections):
        raise UnacceptableOffer(f"the offer has more than {MAX_CANDIDATES} candidates per media section")
    if any(_CANDIDATE.fullmatch(line.removeprefix("a=")) is None for line in candidates):
        raise UnreadableOffer("a candidate of the offer cannot be read")
    kept = [line for line in lines if not _names_mdns(line)]
    return Offer("\r\n".join(kept) + "\r\n", ufrag)


def parse_fragment(body: str) -> TrickleFragment:
    """Read an application/trickle-ice-sdpfrag body; raises BadFragment."""
    lines = [line for line in body.splitlines() if line]
    if not lines or not all(_LINE.fullmatch(line) for line in lines):
        raise BadFragment("the body is not an SDP fragment")
    session, *sections = _sections(lines)
    everywhere = [session, *sections]
    candidates = []
    for index, section in enumerate(everywhere):
        for text in section.attributes.get("candidate", []):
            match = _CANDIDATE.fullmatch(f"candidate:{text}")
            if match is None:
                raise BadFragment("a candidate cannot be read")
            mid = section.first("mid")
            # A candidate without a media section belongs to the first one: with BUNDLE there is only one transport.
            mline_index = None if mid is not None else max(0, index - 1)
            if match["component"] == "1" and match["transport"].lower() == "udp":
                candidates.append(IceCandidate(match["sdp"], match["address"], mid, mline_index))
    if len(candidates) > MAX_CANDIDATES:
        raise BadFragment(f"the fragment has more than {MAX_CANDIDATES} candidates")
    ufrag = next((name for section in everywhere if (name := section.first("ice-ufrag"))), None)
    ended = any("end-of-candidates" in section.attributes for section in everywhere)
    if ufrag is None and not candidates and not ended:
        raise BadFragment("the fragment has neither candidates nor credentials")
    return TrickleFragment(ufrag, tuple(candidates), ended)


def announced(answer: str, announcement: Announcement) -> str:
    """Our answer with the public address instead of private addresses.

    Only the host candidates to which the NAT forwards are kept, with the public address. Viewers cannot reach the
    others, and they would reveal the internal network. Candidates of other types already have public addresses; only
    their related address is removed. The default destination changes too (RFC 8839, section 4.2.1.2).
    """
    lines: list[str] = []
    default_port: str | None = None
    for line in answer.splitlines():
        if line.startswith("a=candidate:"):
            if (replaced := _announced_candidate(line, announcement)) is None:
                continue
            lines.append(replaced)
            default_port = default_port or replaced.split(" ")[5]
        else:
            lines.append(line)
    public = announcement.public
    for index, line in enumerate(lines):
        if line.startswith("c=IN IP"):
            lines[index] = f"c=IN IP{public.version} {public}"
        elif line.startswith("m=") and default_port and line.split(" ")[1] != "0":
            kind, _, rest = line.split(" ", 2)
            lines[index] = f"{kind} {default_port} {rest}"
    return "\r\n".join(lines) + "\r\n"


def _announced_candidate(line: str, announcement: Announcement) -> str | None:
    public, local = announcement.public, announcement.local
    fields = line.split(" ")
    if fields[7] != "host":
        return _RELATED.sub(f"raddr {_NIL[public.version]} rport 9", line)
    address = ip_address(fields[4])
    if address.version != public.version or (local is not None and address != local):
        return None
    fields[4] = str(public)
    return " ".join(fields)


def _sections(lines: list[str]) -> Iterator[_Section]:
    """The session part first, then each media section."""
    section = _Section("session", "")
    for line in lines:
        if line.startswith("m="):
            yield section
            kind, _, rest = line[2:].partition(" ")
            section = _Section(kind, rest.split(" ", 1)[0].split("/", 1)[0])
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            section.attributes.setdefault(name, []).append(value)
    yield section


def _names_mdns(line: str) -> bool:
    match = _CANDIDATE.fullmatch(line.removeprefix("a="))
    return match is not None and match["address"].endswith(".local")
