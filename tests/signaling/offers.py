"""Parts of offers, shortened to what matters: each section has its connection unless a test removes it."""

from __future__ import annotations

SESSION = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
"""
CONNECTION = """\
a=ice-ufrag:{name}frag
a=ice-pwd:{name}P2uYro0UCOQ4zxjKXaWCBui1
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=candidate:1 1 udp 2122260223 192.0.2.1 6000{index} typ host generation 0
a=candidate:2 1 udp 2122260222 3f2a1c9e-8e8a-4d8e-9d5a-2f1f1f1f1f1f.local 6100{index} typ host
"""
VIDEO = """\
m=video 9 UDP/TLS/RTP/SAVPF 96 102 103
c=IN IP4 0.0.0.0
a=mid:v
a=recvonly
a=rtcp-mux
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:5 urn:3gpp:video-orientation
a=rtpmap:96 VP8/90000
a=rtpmap:102 H264/90000
a=rtcp-fb:102 nack
a=rtcp-fb:102 nack pli
a=rtcp-fb:102 ccm fir
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
""" + CONNECTION.format(name="v", index=1)
AUDIO = """\
m=audio 9 UDP/TLS/RTP/SAVPF 111 0
c=IN IP4 0.0.0.0
a=mid:a
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10
""" + CONNECTION.format(name="a", index=2)
DATA = """\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:d
a=sctp-port:5000
""" + CONNECTION.format(name="d", index=3)
ODD = """\
m=x-hologram 9/2 X/Y 1 2 3
a=mid:x
"""
#: What a bundle-only section leaves to the section that carries the connection.
SHARED = ("a=ice-", "a=fingerprint", "a=setup", "a=candidate", "a=rtcp-mux")


def description(*sections: str, group: str | None = None) -> str:
    """An offer of these sections. group: the mids of its BUNDLE group, None for no group."""
    bundle = "" if group is None else f"a=group:BUNDLE {group}\n"
    return (SESSION + bundle + "".join(sections)).replace("\n", "\r\n")


def changed(section: str, **names: str) -> str:
    """A section under another mid: `changed(VIDEO, mid="w")`; or with another direction: `direction="sendonly"`."""
    for line in section.splitlines():
        if "mid" in names and line.startswith("a=mid:"):
            section = section.replace(line, f"a=mid:{names['mid']}")
        if "direction" in names and line in {"a=recvonly", "a=sendrecv"}:
            section = section.replace(line, f"a={names['direction']}")
    return section


def bundle_only(section: str, *, shared_lines: bool) -> str:
    """A section without a port (RFC 9143, section 6), with or without lines of the shared connection."""
    kept = [line for line in section.splitlines() if shared_lines or not line.startswith(SHARED)]
    head, *rest = kept
    return "\n".join([head.replace(" 9 ", " 0 "), *rest, "a=bundle-only", ""])
