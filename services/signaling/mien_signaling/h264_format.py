"""Chooses the H.264 format of an offer in which we can send (RFC 6184, sections 8.1 and 8.2.2). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mien_signaling.sdp import Section

_CODEC = "H264/90000"
_RETRANSMISSION = "rtx/90000"
_LARGEST_PAYLOAD_TYPE = 127
#: Packets of these types look like RTCP where both share a port (RFC 5761, section 4).
_RTCP_LIKE = range(64, 96)
_PROFILE_LEVEL_ID = re.compile(r"[0-9a-f]{6}")
_CONSTRAINED, _MAIN_TOO = 0x40, 0x80  # constraint_set1_flag and constraint_set0_flag
#: Requests of a receiver that we answer.
_FEEDBACK = ("nack", "nack pli", "goog-remb")


class NoFormat(ValueError):
    """The section offers no format in which we can send; the text says why."""


@dataclass(frozen=True, slots=True)
class H264Format:
    """A format of the offer. parameters: its fmtp line in the answer. feedback: requests that both sides know."""

    payload_type: int
    parameters: str
    feedback: tuple[str, ...]
    rtx_payload_type: int | None

    def lines(self) -> list[str]:
        """The format in our answer, by the payload types of the offer."""
        main = self.payload_type
        lines = [f"a=rtpmap:{main} {_CODEC}", *(f"a=rtcp-fb:{main} {request}" for request in self.feedback)]
        lines.append(f"a=fmtp:{main} {self.parameters}")
        if self.rtx_payload_type is not None:
            lines += [
                f"a=rtpmap:{self.rtx_payload_type} {_RETRANSMISSION}",
                f"a=fmtp:{self.rtx_payload_type} apt={main}",
            ]
        return lines

    def payload_types(self) -> str:
        return (
            f"{self.payload_type}" if self.rtx_payload_type is None else f"{self.payload_type} {self.rtx_payload_type}"
        )


def choose(section: Section) -> H264Format:
    """The offer's format for constrained baseline with fragmented pictures. Raises NoFormat.

    Every decoder of the Baseline, Main and High profiles decodes constrained baseline (H.264, annex A.2). Levels are
    not compared: many receivers offer a lower level than they decode.

    We do not send in packetization mode 0, which is the default: there each slice must fit one packet (RFC 6184,
    section 6.2). A picture is one slice, of 5 kB on average, and pylibsrtp encrypts packets of up to 1,500 bytes.
    """
    codecs, parameters = _codecs(section), _parameters(section)
    offered = [number for number in codecs if codecs[number].casefold() == _CODEC.casefold()]
    if not offered:
        raise NoFormat("the offer has no H264 video codec")
    fragmented = [number for number in offered if parameters.get(number, {}).get("packetization-mode", "0") == "1"]
    if not fragmented:
        raise NoFormat(
            "the offer's H264 formats have packetization-mode 0 or 2, in which we cannot send; "
            "offer packetization-mode=1"
        )
    ranked = [(rank, number) for number in fragmented if (rank := _rank(parameters[number])) is not None]
    if not ranked:
        raise NoFormat("the offer's H264 profiles cannot decode constrained baseline; offer profile-level-id=42e01f")
    _, chosen = min(ranked, key=lambda entry: entry[0])  # of equal ranks the first: the offer's order is its preference
    retransmission = (
        number
        for number, codec in codecs.items()
        if codec.casefold() == _RETRANSMISSION and parameters.get(number, {}).get("apt") == str(chosen)
    )
    return H264Format(chosen, _answered(parameters[chosen]), _feedback(section, chosen), next(retransmission, None))


def _codecs(section: Section) -> dict[int, str]:
    """Payload type -> codec, in the order of the m= line."""
    named: dict[str, str] = {}
    for text in section.all("rtpmap"):
        number, _, codec = text.partition(" ")
        named.setdefault(number, codec.strip())
    listed = [number for number in section.formats.split() if number in named and number.isdecimal()]
    valid = [number for number in listed if len(number) < 4 and int(number) <= _LARGEST_PAYLOAD_TYPE]
    return {int(number): named[number] for number in valid if int(number) not in _RTCP_LIKE}


def _parameters(section: Section) -> dict[int, dict[str, str]]:
    """Payload type -> its fmtp parameters. Blanks around separators and the case of names do not matter."""
    found: dict[int, dict[str, str]] = {}
    for text in section.all("fmtp"):
        number, _, rest = text.partition(" ")
        if number.isdecimal() and len(number) < 4:
            pairs = (part.partition("=") for part in rest.split(";"))
            found.setdefault(int(number), {name.strip().lower(): value.strip() for name, _, value in pairs})
    return found


def _rank(parameters: dict[str, str]) -> int | None:
    """How well a profile fits, 0 best; None if it does not decode constrained baseline.

    Without profile-level-id it is baseline by RFC 6184, section 8.1, and constrained baseline by WebRTC's convention.
    """
    text = parameters.get("profile-level-id", "42e01f").lower()
    if _PROFILE_LEVEL_ID.fullmatch(text) is None:
        return None
    profile, constraints = int(text[:2], 16), int(text[2:4], 16)
    match profile:
        case 0x42:
            return 0 if constraints & _CONSTRAINED else 1
        case 0x4D:
            return 0 if constraints & _MAIN_TOO else 2
        case 0x64:
            return 3
    return None


def _answered(parameters: dict[str, str]) -> str:
    """Mode and profile are symmetric: the answer repeats them, and leaves out what the offer left out."""
    kept = (
        {"level-asymmetry-allowed": "1", "packetization-mode": "1"}
        if (parameters.get("level-asymmetry-allowed") == "1")
        else {"packetization-mode": "1"}
    )
    if profile := parameters.get("profile-level-id"):
        kept["profile-level-id"] = profile
    return ";".join(f"{name}={value}" for name, value in kept.items())


def _feedback(section: Section, payload_type: int) -> tuple[str, ...]:
    asked = [text.split() for text in section.all("rtcp-fb")]
    asked_of_it = {" ".join(words[1:]) for words in asked if words and words[0] in {"*", str(payload_type)}}
    return tuple(request for request in _FEEDBACK if request in asked_of_it)
