"""Writes our answers: to the whole offer from aiortc's answer to its reduced form, with the public address. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from mien_signaling.h264_format import H264Format
from mien_signaling.offer import Offer
from mien_signaling.opus_format import OpusFormat
from mien_signaling.room_offer import RoomOffer
from mien_signaling.sdp import Section
from mien_signaling.speaker_offer import SpeakerOffer

_RELATED = re.compile(r"raddr \S+ rport \d+")
_NIL = {4: "0.0.0.0", 6: "::"}
#: Lines of aiortc's section that describe the connection, and those that describe our stream.
_CONNECTION = ("a=candidate:", "a=end-of-candidates", "a=ice-", "a=fingerprint:", "a=setup:")
_STREAM = ("a=msid:", "a=rtcp:", "a=ssrc-group:", "a=ssrc:")
_CREDENTIALS = ("a=ice-", "a=fingerprint:", "a=setup:", "a=end-of-candidates")


@dataclass(frozen=True, slots=True)
class Announcement:
    """The address to announce instead of the host's addresses behind a 1:1 NAT (a container, a VM in a cloud).

    public: the address at which viewers reach this service; the NAT keeps port numbers. local: the host's address to
    which the NAT forwards, None if it is not known.
    """

    public: IPv4Address | IPv6Address
    local: IPv4Address | IPv6Address | None = None


def answer_to(offer: Offer, accepted: str) -> str:
    """Our answer to a viewer. accepted: aiortc's answer to the reduced offer.

    It has every section of the offer, in the offer's order (RFC 9429, section 5.3.1). All are refused except those that
    we send to and the one that carries their connection, which is inactive. Under max-bundle, Chromium has no other
    connection than that section's, and Firefox and GStreamer offer the chosen section without a port (bundle-only). RFC
    9143, section 7.3.1, then forbids to refuse the carrier. The BUNDLE group names no refused section.
    """
    session, sections = _split(accepted)
    ours = {offer.chosen: _video(offer.sections[offer.chosen], offer.format, offer.extensions, sections[0])}
    if offer.voice is not None:
        ours[offer.voice.index] = _voice(offer.sections[offer.voice.index], offer.voice.format, sections[1], "sendonly")
    return _answer(offer, session, sections[0], ours)


def room_answer_to(offer: RoomOffer, accepted: str) -> str:
    """Our answer to a participant that watches its room, by the same rules."""
    session, sections = _split(accepted)
    ours, left = {}, iter(sections)
    for slot in offer.slots:
        ours[slot.index] = _video(offer.sections[slot.index], slot.format, slot.extensions, next(left))
        if slot.voice is not None:
            section = offer.sections[slot.voice.index]
            ours[slot.voice.index] = _voice(section, slot.voice.format, next(left), "sendonly")
    return _answer(offer, session, sections[0], ours)


def speaker_answer_to(offer: SpeakerOffer, accepted: str, max_message_bytes: int) -> str:
    """Our answer to a speaker, by the same rules. max_message_bytes: the longest message that we take."""
    session, sections = _split(accepted)
    ours: dict[int, list[str]] = {}
    if offer.voice is not None and offer.opus is not None:
        ours[offer.voice] = _voice(offer.sections[offer.voice], offer.opus, sections[0], "recvonly")
    if offer.data is not None:
        ours[offer.data] = _data(offer.sections[offer.data], sections[-1], max_message_bytes)
    return _answer(offer, session, sections[0], ours)


def _answer(
    offer: Offer | RoomOffer | SpeakerOffer, session: list[str], section: list[str], ours: dict[int, list[str]]
) -> str:
    """The whole answer. section: one of aiortc's, for the connection. ours: the lines of the sections that we serve."""
    lines = [line for line in session if not line.startswith("a=group:")]
    if group := " ".join(str(offer.sections[index].mid) for index in offer.bundle if index in offer.served):
        lines.insert(4, f"a=group:BUNDLE {group}")
    for index, offered in enumerate(offer.sections):
        if index in ours:
            lines += ours[index]
        elif index == offer.carrier:
            lines += _inactive(offered, section)
        else:
            lines += _refused(offered, section)
    return "\r\n".join(lines) + "\r\n"


def _split(description: str) -> tuple[list[str], list[list[str]]]:
    """The lines before the first media section, and those of each section."""
    found: list[list[str]] = [[]]
    for line in description.splitlines():
        if line.startswith("m="):
            found.append([])
        found[-1].append(line)
    return found[0], found[1:]


def _video(offered: Section, video_format: H264Format, extensions: tuple[str, ...], section: list[str]) -> list[str]:
    return [
        f"m=video {_port(section)} {offered.protocol} {video_format.payload_types()}",
        *_having(section, ("c=",)),
        "a=sendonly",
        *(f"a=extmap:{extension}" for extension in extensions),
        *_mid(offered),
        *_having(section, _STREAM),
        "a=rtcp-mux",
        *video_format.lines(),
        *_having(section, _CONNECTION),
    ]


def _voice(offered: Section, opus: OpusFormat, section: list[str], direction: str) -> list[str]:
    return [
        f"m=audio {_port(section)} {offered.protocol} {opus.payload_type}",
        *_having(section, ("c=",)),
        f"a={direction}",
        *_mid(offered),
        *(_having(section, _STREAM) if direction == "sendonly" else []),
        "a=rtcp-mux",
        *opus.lines(),
        *_having(section, _CONNECTION),
    ]


def _data(offered: Section, section: list[str], max_message_bytes: int) -> list[str]:
    return [
        f"m=application {_port(section)} {offered.protocol} {offered.formats}",
        *_having(section, ("c=",)),
        *_mid(offered),
        *_having(section, ("a=sctp-port:",)),
        f"a=max-message-size:{max_message_bytes}",
        *_having(section, _CONNECTION),
    ]


def _inactive(offered: Section, section: list[str]) -> list[str]:
    return [
        f"m={offered.kind} {_port(section)} {offered.protocol} {offered.formats}",
        *_having(section, ("c=",)),
        "a=inactive",
        *_mid(offered),
        "a=rtcp-mux",
        *_formats(offered),
        *_having(section, _CONNECTION),
    ]


def _refused(offered: Section, section: list[str]) -> list[str]:
    """A section with port 0 (RFC 3264, section 6). Everything below its mid is for readers that do not know refusal.

    aiortc is one: it demands credentials and a common format of every section.
    """
    return [
        f"m={offered.kind} 0 {offered.protocol} {offered.formats}",
        "c=IN IP4 0.0.0.0",
        "a=inactive",
        *_mid(offered),
        "a=rtcp-mux",
        *_formats(offered),
        *_having(section, _CREDENTIALS),
    ]


def _port(section: list[str]) -> str:
    return section[0].split(" ")[1]


def _having(section: list[str], beginnings: tuple[str, ...]) -> list[str]:
    return [line for line in section if line.startswith(beginnings)]


def _mid(offered: Section) -> list[str]:
    return [] if offered.mid is None else [f"a=mid:{offered.mid}"]


def _formats(offered: Section) -> list[str]:
    return [f"a={name}:{text}" for name in ("rtpmap", "fmtp") for text in offered.all(name)]


def announced(answer: str, announcement: Announcement) -> str:
    """An answer with the public address instead of private addresses.

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
