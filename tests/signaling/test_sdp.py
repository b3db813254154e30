from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.sdp import MAX_CANDIDATES, BadFragment, IceCandidate, parse_fragment

HOST = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0"

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
    assert (first.mid, first.mline_index, first.address, first.has_address) == ("0", None, "192.0.2.33", True)
    assert first.sdp == "1 1 UDP 1694498815 192.0.2.33 10000 typ srflx raddr 10.0.1.17 rport 10000"
    assert (second.mid, second.has_address) == ("1", False)


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


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises(BadFragment):
        parse_fragment(text)


@pytest.mark.parametrize("address", ["someone.local", "SOMEONE.LOCAL", "turn.example", "fe80::1%lo", "1.2.3", "::x"])
def test_no_name_is_looked_up_and_no_interface_chosen(address: str) -> None:
    assert not IceCandidate("", address).has_address


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_candidate_of_an_impossible_port_is_left_out(port: str) -> None:
    assert parse_fragment(f"a=ice-ufrag:x\n{HOST.replace('61764', port)}").candidates == ()
