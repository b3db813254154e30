"""Fuzzes trickled candidates: each fragment is refused with a named error, or aiortc can read all its candidates."""

from __future__ import annotations

from ipaddress import ip_address

from aiortc.sdp import candidate_from_sdp
from fuzz.harness import Target, main

from mien_signaling.sdp import MAX_CANDIDATES, BadFragment, parse_fragment

_FRAGMENT = """a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
m=video 9 UDP/TLS/RTP/SAVPF 0
a=mid:0
a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1
a=candidate:3471623853 1 udp 2122194687 2001:db8::1 61765 typ host generation 0 ufrag EsAw
a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0
a=candidate:2154773085 1 udp 2113937151 7d9e6f0c.local 60000 typ host
a=candidate:2154773086 1 UDP 41885439 203.0.113.9 50000 typ relay raddr 198.51.100.3 rport 61764
a=end-of-candidates
"""


def check(data: bytes) -> None:
    try:
        fragment = parse_fragment(data.decode())
    except UnicodeDecodeError:
        return  # the HTTP layer refuses it
    except BadFragment:
        return
    assert len(fragment.candidates) <= MAX_CANDIDATES
    assert fragment.ufrag or fragment.candidates or fragment.end_of_candidates
    for candidate in fragment.candidates:
        read = candidate_from_sdp(candidate.sdp)
        assert read.ip == candidate.address and read.component == 1 and read.protocol.lower() == "udp"
        assert 0 < read.port < 65_536
        if candidate.has_address:
            ip_address(candidate.address)


_WORDS = """a=candidate: typ host srflx prflx relay raddr rport udp UDP tcp ssltcp 1 2 256 0 99999999999 -1 .local
::ffff:1.2.3.4 %eth0 fe80::1%lo a=mid: a=ice-ufrag: m=video m=audio generation tcptype = : ² ٣ \u2028 \x85 \x0b"""
TARGET = Target(
    "trickle",
    check,
    [_FRAGMENT.encode(), _FRAGMENT.replace("\n", "\r\n").encode(), _FRAGMENT.splitlines()[4].encode()],
    [word.encode() for word in _WORDS.replace("\n", " ").split(" ")] + [b" ", b"\r\n", b"\n"],
)

if __name__ == "__main__":
    main(TARGET)
