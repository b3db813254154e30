"""Fuzzes SDP offers: each is accepted or refused with a named error, and aiortc gets sections of our own words only.

Every input is read as a viewer's offer, as a speaker's and as a participant's that watches its room.
"""

from __future__ import annotations

from ipaddress import ip_address

from aiortc.sdp import MediaDescription, SessionDescription
from fuzz.harness import Target, main

from mien_signaling.answer import answer_to, room_answer_to, speaker_answer_to
from mien_signaling.offer import MAX_MEDIA_SECTIONS, Offer, UnacceptableOffer, UnreadableOffer, parse_offer
from mien_signaling.room_offer import MAX_ROOM_SECTIONS, RoomOffer, parse_room_offer
from mien_signaling.sdp import MAX_CANDIDATES
from mien_signaling.speaker_offer import SpeakerOffer, parse_speaker_offer

_OFFER = """v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=recvonly
a=ice-ufrag:uPzH
a=ice-pwd:Ztsid0aEC7iPVhBnkkBoVvUw
a=fingerprint:sha-256 {print}
a=setup:actpass
a=rtcp-mux
a=rtpmap:111 opus/48000/2
m=video 57421 UDP/TLS/RTP/SAVPF 102 121 127
c=IN IP4 192.168.1.20
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2122260223 192.168.1.20 57421 typ host generation 0
a=candidate:2 1 udp 2122194687 7d9e6f0c-55b5-4c28-a00a-1c9d1a8b6f2e.local 57422 typ host
a=candidate:3 1 udp 1685987071 198.51.100.9 57421 typ srflx raddr 192.168.1.20 rport 57421
a=candidate:4 1 tcp 1518280447 2001:db8::7 9 typ host tcptype active
a=ice-ufrag:uPzH
a=ice-pwd:Ztsid0aEC7iPVhBnkkBoVvUw
a=fingerprint:sha-256 {print}
a=setup:actpass
a=mid:1
a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:102 H264/90000
a=rtcp-fb:102 nack pli
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:121 rtx/90000
a=fmtp:121 apt=102
a=rtpmap:127 H264/90000
a=fmtp:127 packetization-mode=0;profile-level-id=42001f
a=end-of-candidates
""".format(print=":".join(["AB"] * 32))


def check(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # the HTTP layer refuses it
    _check_viewer(text)
    _check_speaker(text)
    _check_room(text)


def _check_viewer(text: str) -> None:
    try:
        offer = parse_offer(text)
    except (UnreadableOffer, UnacceptableOffer):
        return
    section, *others = SessionDescription.parse(offer.reduced).media
    assert (section.kind, section.direction, section.rtcp_mux) == ("video", "recvonly", True)
    assert [codec.name for codec in section.rtp.codecs] in (["H264"], ["H264", "rtx"])
    assert [one.kind for one in others] == ([] if offer.voice is None else ["audio"])
    _check_connections([section, *others], offer)
    answer = answer_to(offer, _ACCEPTED + _ACCEPTED_OTHER * len(others))
    _check_ports(answer, offer)
    assert [line for line in answer.split("\r\n") if line.startswith("m=")][offer.chosen].startswith("m=video ")


def _check_speaker(text: str) -> None:
    try:
        offer = parse_speaker_offer(text)
    except (UnreadableOffer, UnacceptableOffer):
        return
    sections = SessionDescription.parse(offer.reduced).media
    expected = {"audio": offer.voice is not None, "application": offer.data is not None}
    assert [one.kind for one in sections] == [kind for kind, is_there in expected.items() if is_there]
    _check_connections(sections, offer)
    accepted = _ACCEPTED[: _ACCEPTED.index("m=")] + _ACCEPTED_OTHER * len(sections)
    _check_ports(speaker_answer_to(offer, accepted, 512), offer)


def _check_room(text: str) -> None:
    try:
        offer = parse_room_offer(text, _SLOTS)
    except (UnreadableOffer, UnacceptableOffer):
        return
    sections = SessionDescription.parse(offer.reduced).media
    assert 1 <= len(offer.slots) <= _SLOTS
    kinds = [kind for slot in offer.slots for kind in (["video"] if slot.voice is None else ["video", "audio"])]
    assert [one.kind for one in sections] == kinds
    _check_connections(sections, offer)
    accepted = _ACCEPTED[: _ACCEPTED.index("m=")] + _ACCEPTED_OTHER * len(sections)
    _check_ports(room_answer_to(offer, accepted), offer, MAX_ROOM_SECTIONS)


def _check_connections(sections: list[MediaDescription], offer: Offer | RoomOffer | SpeakerOffer) -> None:
    for section in sections:
        assert section.ice.usernameFragment in offer.ufrags and section.ice.password
        assert section.dtls.fingerprints and not section.ice_candidates_complete
        assert len(section.ice_candidates) <= MAX_CANDIDATES
        for candidate in section.ice_candidates:
            ip_address(candidate.ip)


def _check_ports(answer: str, offer: Offer | RoomOffer | SpeakerOffer, most: int = MAX_MEDIA_SECTIONS) -> None:
    """The answer has every section of the offer, and ports only for those that we serve."""
    lines = [line for line in answer.split("\r\n") if line.startswith("m=")]
    assert 1 <= len(lines) == len(offer.sections) <= most
    assert {index for index, line in enumerate(lines) if line.split(" ")[1] != "0"} == offer.served


_SLOTS = 2
_ACCEPTED = """v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 97
c=IN IP4 192.0.2.1
a=sendonly
a=ice-ufrag:ours
"""
_ACCEPTED_OTHER = """m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 192.0.2.1
a=ice-ufrag:ours
"""
_WORDS = """a=candidate:
typ host srflx relay a=mid:1 a=mid: m=video m=audio 9 m=application c=IN IP4 c=IN IP6 ::1 udp tcp
a=recvonly a=sendonly a=inactive a=bundle-only a=rtcp-mux
packetization-mode=1 m=video 0 a=ice-ufrag: a=ice-pwd: a=fingerprint: a=rtpmap:102 H264/90000 a=fmtp:102
a=setup:passive a=group:BUNDLE 0 99999999999999999999 .local 0 -1 a=extmap: a=ssrc: a=rtcp-fb:
= : ; / \u2028 \x85 \x0c"""
_DATA = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
_AUDIO_ALONE = _OFFER[: _OFFER.index("m=video")]
_AUDIO, _VIDEO = _AUDIO_ALONE[_OFFER.index("m=audio") :], _OFFER[_OFFER.index("m=video") :]
_SPEAKER = _AUDIO_ALONE.replace("a=recvonly", "a=sendonly") + _DATA
_ROOM = _OFFER.replace("BUNDLE 0 1", "BUNDLE 0 1 2 3 4 5") + "".join(
    section.replace(f"a=mid:{old}", f"a=mid:{new}")
    for section, old, new in ((_VIDEO, 1, 2), (_AUDIO, 0, 3), (_VIDEO, 1, 4), (_DATA, 1, 5))
)
_LINES = [line.encode() + b"\r\n" for line in _OFFER.splitlines()]
TARGET = Target(
    "sdp",
    check,
    [
        _OFFER.encode(),
        _SPEAKER.encode(),
        _ROOM.encode(),
        _OFFER.replace("\n", "\r\n").encode(),
        _OFFER[: _OFFER.index("m=video")].encode(),
    ],
    [word.encode() for word in _WORDS.replace("\n", " ").split(" ")] + _LINES + [b"\r\n", b"\n", b"\r"],
)

if __name__ == "__main__":
    main(TARGET)
