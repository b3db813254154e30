from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.sdp import (
    MAX_CANDIDATES,
    Announcement,
    BadFragment,
    UnacceptableOffer,
    UnreadableOffer,
    announced,
    parse_fragment,
    parse_offer,
)

HOST = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0"
MDNS = "a=candidate:2 1 udp 2122260223 3f2a1c9e-8e8a-4d8e-9d5a-2f1f1f1f1f1f.local 61765 typ host"

# Chromium's, shortened to what matters here.
OFFER = f"""\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 102
c=IN IP4 0.0.0.0
{HOST}
{MDNS}
a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=mid:0
a=recvonly
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtpmap:102 H264/90000
""".replace("\n", "\r\n")


def test_an_offer_passes_without_its_mdns_candidates() -> None:
    offer = parse_offer(OFFER)
    assert offer.ufrag == "EsAw"
    assert offer.sdp == OFFER.replace(MDNS + "\r\n", "")


def test_credentials_may_stand_above_the_media() -> None:
    moved = OFFER.replace("a=ice-ufrag:EsAw\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=ice-ufrag:EsAw\r\n")
    assert parse_offer(moved).ufrag == "EsAw"


def test_line_feeds_alone_will_do() -> None:
    assert parse_offer(OFFER.replace("\r\n", "\n")).ufrag == "EsAw"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("v=0\r\n", "", "the body is not an SDP description"),
        ("s=-", "what is this", "the body is not an SDP description"),
        (HOST, "a=candidate:1 1 udp", "a candidate of the offer cannot be read"),
        (HOST, f"{HOST} rport 1x", "a candidate of the offer cannot be read"),
    ],
)
def test_an_offer_that_cannot_be_read(old: str, new: str, message: str) -> None:
    with pytest.raises(UnreadableOffer, match=message):
        parse_offer(OFFER.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("m=video 9", "m=audio 9", "no video section that receives"),
        ("m=video 9", "m=video 0", "no video section that receives"),
        ("a=recvonly", "a=inactive", "no video section that receives"),
        ("a=recvonly", "a=sendonly", "no video section that receives"),
        ("a=rtpmap:102 H264/90000\r\n", "", "no H264 video codec"),
        ("a=ice-ufrag:EsAw\r\n", "", "the offer's video section has no ice-ufrag"),
        ("a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", "", "the offer's video section has no ice-pwd"),
        ("a=fingerprint:sha-256 AA:BB\r\n", "", "the offer's video section has no fingerprint"),
        ("a=rtcp-mux\r\n", "", "the offer's video section has no rtcp-mux"),
        (HOST, "\r\n".join([HOST] * (MAX_CANDIDATES + 1)), "more than 32 candidates"),
        ("BUNDLE 0", "BUNDLE 1 0", "the offer's BUNDLE group names a media section that the offer does not have"),
    ],
)
def test_an_offer_that_cannot_be_taken(old: str, new: str, message: str) -> None:
    with pytest.raises(UnacceptableOffer, match=message):
        parse_offer(OFFER.replace(old, new))


def test_an_offer_of_nothing_and_of_too_much() -> None:
    with pytest.raises(UnacceptableOffer, match="the offer has no media section"):
        parse_offer("v=0\r\n")
    video = OFFER[OFFER.index("m=video") :]
    with pytest.raises(UnacceptableOffer, match="more than 8 media sections"):
        parse_offer(OFFER + video * 8)


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse, errors in ((parse_offer, (UnreadableOffer, UnacceptableOffer)), (parse_fragment, (BadFragment,))):
        with pytest.raises(errors):
            parse(text)


# RFC 8840, section 9.2
FRAGMENT = """\
a=ice-ufrag:P2uY
a=ice-pwd:n0UCOQ4zxjKXaWCBui1
m=audio 9 RTP/AVP 0
a=mid:0
a=candidate:1 1 UDP 1694498815 192.0.2.33 10000 typ srflx raddr 10.0.1.17 rport 10000
a=candidate:1 2 UDP 1694498814 192.0.2.33 10001 typ srflx raddr 10.0.1.17 rport 10001
a=candidate:2 1 TCP 1694498815 192.0.2.33 9 typ host tcptype active
m=video 9 RTP/AVP 31
a=mid:1
a=candidate:3 1 UDP 1694498815 someone.local 10000 typ host
a=end-of-candidates
"""


def test_a_fragment() -> None:
    fragment = parse_fragment(FRAGMENT)
    assert fragment.ufrag == "P2uY"
    assert fragment.end_of_candidates
    # RTP alone over UDP is what we can use: component 1.
    first, second = fragment.candidates
    assert (first.mid, first.mline_index, first.address, first.is_mdns) == ("0", None, "192.0.2.33", False)
    assert first.sdp == "1 1 UDP 1694498815 192.0.2.33 10000 typ srflx raddr 10.0.1.17 rport 10000"
    assert (second.mid, second.is_mdns) == ("1", True)


def test_a_fragment_without_media_section_is_for_the_first() -> None:
    fragment = parse_fragment("a=ice-ufrag:x\r\n" + HOST + "\r\n")
    assert [(one.mid, one.mline_index) for one in fragment.candidates] == [(None, 0)]
    assert not fragment.end_of_candidates


def test_media_sections_without_a_mid_are_counted() -> None:
    fragment = parse_fragment(f"m=audio 9 X 0\n{HOST}\nm=video 9 X 0\n{HOST}\n")
    assert [one.mline_index for one in fragment.candidates] == [0, 1]


def test_the_end_alone_is_a_fragment() -> None:
    assert parse_fragment("a=end-of-candidates").end_of_candidates


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the body is not an SDP fragment"),
        ("hello", "the body is not an SDP fragment"),
        ("a=mid:0", "neither candidates nor credentials"),
        ("a=candidate:1 1 udp 1 192.0.2.1 1 typ moon", "a candidate cannot be read"),
        ("a=candidate:1 1 udp 1 192.0.2.1 1 typ srflx raddr 10.0.0.1 rport x", "a candidate cannot be read"),
        ("\n".join([HOST] * (MAX_CANDIDATES + 1)), "more than 32 candidates"),
    ],
)
def test_a_bad_fragment(body: str, message: str) -> None:
    with pytest.raises(BadFragment, match=message):
        parse_fragment(body)


# aiortc's, from a container on two networks, with a relay; shortened to what matters here.
ANSWER = """\
v=0
o=- 4004165099 4004165099 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
m=video 41003 UDP/TLS/RTP/SAVPF 102
c=IN IP4 172.19.0.4
a=sendonly
a=mid:0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:f1 1 udp 2130706431 172.19.0.4 41003 typ host
a=candidate:f2 1 udp 2130706431 172.18.0.5 40017 typ host
a=candidate:f3 1 udp 2130706431 fd00::5 40018 typ host
a=candidate:f4 1 udp 16777215 198.51.100.7 50000 typ relay raddr 172.18.0.5 rport 40020
a=end-of-candidates
a=ice-ufrag:Ihgr
""".replace("\n", "\r\n")


def test_behind_a_nat_the_public_address_is_told_and_no_private_one() -> None:
    told = announced(ANSWER, Announcement(ip_address("203.0.113.9"), ip_address("172.18.0.5")))
    assert [line for line in told.split("\r\n") if line[:2] in {"m=", "c="} or "candidate:" in line] == [
        "m=video 40017 UDP/TLS/RTP/SAVPF 102",
        "c=IN IP4 203.0.113.9",
        "a=candidate:f2 1 udp 2130706431 203.0.113.9 40017 typ host",
        "a=candidate:f4 1 udp 16777215 198.51.100.7 50000 typ relay raddr 0.0.0.0 rport 9",
    ]
    assert "172." not in told
    assert "fd00" not in told


def test_where_the_way_in_is_not_known_every_host_candidate_of_that_family_is_told() -> None:
    told = announced(ANSWER, Announcement(ip_address("203.0.113.9")))
    assert "203.0.113.9 41003 typ host" in told
    assert "203.0.113.9 40017 typ host" in told
    assert "40018" not in told


def test_a_public_address_of_version_6() -> None:
    told = announced(ANSWER, Announcement(ip_address("2001:db8::9"), ip_address("fd00::5")))
    assert "c=IN IP6 2001:db8::9\r\n" in told
    assert "a=candidate:f3 1 udp 2130706431 2001:db8::9 40018 typ host\r\n" in told
    assert "40017" not in told


def test_announcing_changes_nothing_else() -> None:
    told = announced(ANSWER, Announcement(ip_address("203.0.113.9"), ip_address("172.18.0.5")))
    touched = ("m=", "c=", "a=candidate:")
    assert [line for line in told.split("\r\n") if not line.startswith(touched)] == [
        line for line in ANSWER.split("\r\n") if not line.startswith(touched)
    ]


def test_a_refused_media_section_stays_refused() -> None:
    refused = ANSWER.replace("m=video 41003", "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\nm=video 41003")
    told = announced(refused, Announcement(ip_address("203.0.113.9"), ip_address("172.18.0.5")))
    assert "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\nm=video 40017" in told
