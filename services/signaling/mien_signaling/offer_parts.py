"""What offers of viewers and of speakers have in common: sections, BUNDLE groups and the connection. Pure.

aiortc never sees a stranger's text. It gets a reduced offer, written from these parts, with only the sections that we
serve.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mien_signaling.sdp import MAX_CANDIDATES, IceCandidate, Section, Unreadable, candidates_of, sections_of

#: Of an offer to a session. An offer to a room has two for each slot (room_offer.py).
MAX_MEDIA_SECTIONS = 8
#: How aiortc's sections of Opus name it. The answer has the numbers of the offer.
REDUCED_OPUS = 111

_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~\w-]{1,32}", re.ASCII)
_ICE_TEXT = re.compile(r"[!-~]{1,256}")
_FINGERPRINT = re.compile(r"sha-(?:256|384|512) [0-9a-f:]+", re.IGNORECASE)
# RFC 9429, section 5.1.2: these are answered, if only with DTLS-SRTP.
_PROTOCOL = re.compile(r"(?:(?:UDP|TCP)/D?TLS/)?RTP/S?AVPF?")
#: Who opens the DTLS connection. An offer without it is active (RFC 4145, section 4).
_SETUPS = {"actpass", "active", "passive"}
_DIRECTIONS = {"sendrecv", "sendonly", "recvonly", "inactive"}


class UnreadableOffer(ValueError):
    """The body is not an SDP description. Answered with 400."""


class UnacceptableOffer(ValueError):
    """The body is SDP, but we cannot serve this offer. Answered with 422."""


@dataclass(frozen=True, slots=True)
class Description:
    """The sections of an offer. bundles: its BUNDLE groups, each as indexes of its sections."""

    session: Section
    sections: tuple[Section, ...]
    bundles: tuple[tuple[int, ...], ...]
    candidates: tuple[tuple[IceCandidate, ...], ...]

    @property
    def ufrags(self) -> frozenset[str]:
        """Every ICE user fragment of the offer."""
        return frozenset(name for part in (self.session, *self.sections) for name in part.all("ice-ufrag"))

    def directions(self, section: Section) -> set[str]:
        """The direction of a section as the offer names it; empty without one, which means sendrecv."""
        return _DIRECTIONS & section.attributes.keys() or _DIRECTIONS & self.session.attributes.keys()

    def receives(self, section: Section) -> bool:
        return not is_refused(section) and not self.directions(section) & {"sendonly", "inactive"}

    def sends(self, section: Section) -> bool:
        return not is_refused(section) and not self.directions(section) & {"recvonly", "inactive"}

    def group_of(self, index: int) -> tuple[int, ...]:
        return next((group for group in self.bundles if index in group), ())


@dataclass(frozen=True, slots=True)
class Connection:
    """How to connect to the other side.

    carrier: index of the section that carries the connection for the chosen one (the offerer-tagged section of its
    BUNDLE group), None if the chosen one does so itself. bundle: indexes of the sections of that group, in its order;
    empty without a group. lines: of ICE and DTLS. candidates: with addresses only; one with a name (mDNS) cannot be
    resolved outside the other side's network, and its address becomes known from its first check (RFC 8445, section
    7.3.1.3).
    """

    carrier: int | None
    bundle: tuple[int, ...]
    lines: tuple[str, ...]
    candidates: tuple[IceCandidate, ...]

    def section_lines(self) -> list[str]:
        return [*self.lines, *(f"a=candidate:{candidate.sdp}" for candidate in self.candidates)]


def is_refused(section: Section) -> bool:
    return section.port == 0 and "bundle-only" not in section.attributes


def is_rtp(section: Section) -> bool:
    return _PROTOCOL.fullmatch(section.protocol) is not None


def read_description(body: str, max_sections: int = MAX_MEDIA_SECTIONS) -> Description:
    """Raises UnreadableOffer or UnacceptableOffer."""
    try:
        session, *sections = sections_of(body)
    except Unreadable as error:
        raise UnreadableOffer("the body is not an SDP description") from error
    if next(line for line in body.splitlines() if line) != "v=0":
        raise UnreadableOffer("the body is not an SDP description")
    if not sections:
        raise UnacceptableOffer("the offer has no media section")
    if len(sections) > max_sections:
        raise UnacceptableOffer(f"the offer has more than {max_sections} media sections")
    bundles = tuple(tuple(group) for group in _bundles(session, sections))
    candidates = tuple(tuple(_candidates(section, index)) for index, section in enumerate(sections))
    return Description(session, tuple(sections), bundles, candidates)


def connection_of(offered: Description, chosen: int, what: str) -> Connection:
    """The connection of a section. what: its kind, for errors. Raises UnreadableOffer or UnacceptableOffer."""
    section, sections, bundle = offered.sections[chosen], offered.sections, offered.group_of(chosen)
    tagged = next((index for index in bundle if sections[index].port != 0), None)
    if section.port == 0 and tagged is None:
        raise UnacceptableOffer(f"the offer's {what} section is refused, and its BUNDLE group has no other port")
    bundled = [section] if tagged is None else [section, sections[tagged]]
    # RTP and RTCP of a bundle-only section always share a port (RFC 9143, section 9.3).
    needs_mux = section.port != 0 and section.kind in {"audio", "video"}
    if needs_mux and not any("rtcp-mux" in one.attributes for one in bundled):
        raise UnacceptableOffer(f"the offer's {what} section has no rtcp-mux")
    carrier = tagged if tagged is not None and tagged != chosen and _can_be_inactive(sections[tagged]) else None
    source = chosen if tagged is None or (carrier is None and section.port != 0) else tagged
    lines = _connection_lines([sections[source], offered.session, *bundled], what)
    candidates = tuple(candidate for candidate in offered.candidates[source] if candidate.has_address)
    return Connection(carrier, bundle, tuple(lines), candidates)


def reduced_offer(offered: Description, mids: Iterable[str], sections: Iterable[list[str]]) -> str:
    """The offer that aiortc gets. sections: the lines of each.

    It never says end-of-candidates: aiortc would fail as soon as its checks have failed, but the other side's own
    checks may still come (RFC 8863). The limit is connect_timeout_s.
    """
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        *(["a=ice-lite"] if "ice-lite" in offered.session.attributes else []),
        f"a=group:BUNDLE {' '.join(mids)}",
        *(line for section in sections for line in section),
    ]
    return "\r\n".join(lines) + "\r\n"


def reduced_opus(mid: str, direction: str, connection: Connection) -> list[str]:
    """A section of Opus in a reduced offer."""
    return [
        f"m=audio 9 UDP/TLS/RTP/SAVPF {REDUCED_OPUS}",
        "c=IN IP4 0.0.0.0",
        f"a={direction}",
        f"a=mid:{mid}",
        "a=rtcp-mux",
        f"a=rtpmap:{REDUCED_OPUS} opus/48000/2",
        *connection.section_lines(),
    ]


def owns(candidate: IceCandidate, sections: tuple[Section, ...], mine: set[int]) -> bool:
    """Whether a trickled candidate is for our connection. mine: the sections that share it.

    Every section of the BUNDLE group may name it: many clients trickle under the group's first section only.
    """
    if candidate.mid is None:
        # Without any section in the fragment the index is 0, which may be a section that we refused.
        return candidate.mline_index in mine or candidate.mline_index == 0
    return candidate.mid in {sections[index].mid for index in mine}


def _can_be_inactive(section: Section) -> bool:
    """Whether we can keep a section without media. One for data has no such state."""
    return section.kind in {"audio", "video"} and is_rtp(section)


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


def _connection_lines(transport: list[Section], what: str) -> list[str]:
    """The lines of ICE and DTLS. transport: where to look for them, in this order."""

    def find(name: str) -> list[str]:
        return next((values for section in transport if (values := section.all(name))), [])

    for name in ("ice-ufrag", "ice-pwd", "fingerprint"):
        if not find(name):
            raise UnacceptableOffer(f"the offer's {what} section has no {name}")
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
