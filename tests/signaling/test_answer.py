"""Our answer, from an offer and from what aiortc answered to the reduced form of it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from signaling.offers import AUDIO, DATA, ODD, VIDEO, bundle_only, changed, description

from mien_signaling.answer import Announcement, announced, answer_to, speaker_answer_to
from mien_signaling.offer import parse_offer
from mien_signaling.passthrough import PassthroughTrack, h264_preferences
from mien_signaling.speaker_offer import parse_speaker_offer
from mien_signaling.voice_passthrough import opus_preferences


def parts(answer: str) -> list[list[str]]:
    """The lines before the first media section, then those of each section."""
    found: list[list[str]] = [[]]
    for line in answer.splitlines():
        if line.startswith("m="):
            found.append([])
        found[-1].append(line)
    return found


# aiortc's answer to the reduced offer, shortened to what matters here.
SESSION_LINES = """\
v=0
o=- 4004165099 4004165099 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic:WMS *
"""
ACCEPTED = (
    SESSION_LINES
    + """\
m=video 41003 UDP/TLS/RTP/SAVPF 97 98
c=IN IP4 198.51.100.2
a=sendonly
a=mid:0
a=msid:stream track
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:1 cname:ours
a=rtpmap:97 H264/90000
a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=candidate:f1 1 udp 2130706431 198.51.100.2 41003 typ host
a=end-of-candidates
a=ice-ufrag:ours
a=ice-pwd:secret
a=fingerprint:sha-256 CC:DD
a=setup:active
"""
)
#: aiortc's section of voice, in an answer to a viewer or to a speaker.
ACCEPTED_VOICE = """\
m=audio 41003 UDP/TLS/RTP/SAVPF 111
c=IN IP4 198.51.100.2
a=sendonly
a=mid:a
a=msid:stream voice
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:2 cname:ours
a=rtpmap:111 opus/48000/2
a=candidate:f1 1 udp 2130706431 198.51.100.2 41003 typ host
a=end-of-candidates
a=ice-ufrag:ours
a=ice-pwd:secret
a=fingerprint:sha-256 CC:DD
a=setup:active
"""
ACCEPTED_DATA = ACCEPTED_VOICE.replace("audio 41003 UDP/TLS/RTP/SAVPF 111", "application 41003 DTLS/SCTP 5000").replace(
    "a=rtcp-mux", "a=sctp-port:5000"
)
#: A section without Opus.
DEAF = AUDIO.replace(" 111 0", " 9 0").replace(
    "a=rtpmap:111 opus/48000/2\na=fmtp:111 minptime=10\n", "a=rtpmap:9 G722/8000\n"
)
REFUSAL = ["a=ice-ufrag:ours", "a=ice-pwd:secret", "a=fingerprint:sha-256 CC:DD", "a=setup:active"]


def answer(*sections: str, group: str | None) -> list[list[str]]:
    return parts(answer_to(parse_offer(description(*sections, group=group)), ACCEPTED))


def test_the_accepted_section_has_the_offer_s_names_and_our_connection() -> None:
    session, video = answer(VIDEO.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVP"), group="v")
    assert session == [
        "v=0",
        "o=- 4004165099 4004165099 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE v",
        "a=msid-semantic:WMS *",
    ]
    assert video == [
        "m=video 41003 RTP/SAVP 102 103",
        "c=IN IP4 198.51.100.2",
        "a=sendonly",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=mid:v",
        "a=msid:stream track",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=ssrc:1 cname:ours",
        "a=rtcp-mux",
        "a=rtpmap:102 H264/90000",
        "a=rtcp-fb:102 nack",
        "a=rtcp-fb:102 nack pli",
        "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "a=rtpmap:103 rtx/90000",
        "a=fmtp:103 apt=102",
        "a=candidate:f1 1 udp 2130706431 198.51.100.2 41003 typ host",
        "a=end-of-candidates",
        *REFUSAL,
    ]


def test_every_other_section_is_refused_in_its_place() -> None:
    extra = changed(VIDEO, mid="w", direction="sendonly")
    session, video, *refused = answer(VIDEO, DEAF, extra, DATA, ODD, group="v a w d")
    assert "a=group:BUNDLE v" in session
    assert video[0].startswith("m=video 41003 ")
    assert [lines[0] for lines in refused] == [
        "m=audio 0 UDP/TLS/RTP/SAVPF 9 0",
        "m=video 0 UDP/TLS/RTP/SAVPF 96 102 103",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        "m=x-hologram 0 X/Y 1 2 3",
    ]
    assert [lines[3] for lines in refused] == ["a=mid:a", "a=mid:w", "a=mid:d", "a=mid:x"]
    for lines in refused:
        assert lines[1:3] == ["c=IN IP4 0.0.0.0", "a=inactive"]
        assert lines[-5:] == ["a=end-of-candidates", *REFUSAL]
        assert not any(line.startswith("a=candidate") for line in lines)


@pytest.mark.parametrize("form", ["with a port", "with shared lines", "without"])
def test_the_section_that_carries_the_connection_is_kept_inactive(form: str) -> None:
    wanted = VIDEO if form == "with a port" else bundle_only(VIDEO, shared_lines=form == "with shared lines")
    session, audio, video, data = answer(DEAF, wanted, DATA, group="a v d")
    assert "a=group:BUNDLE a v" in session
    assert audio == [
        "m=audio 41003 UDP/TLS/RTP/SAVPF 9 0",
        "c=IN IP4 198.51.100.2",
        "a=inactive",
        "a=mid:a",
        "a=rtcp-mux",
        "a=rtpmap:9 G722/8000",
        "a=candidate:f1 1 udp 2130706431 198.51.100.2 41003 typ host",
        "a=end-of-candidates",
        *REFUSAL,
    ]
    assert video[0].startswith("m=video 41003 ") and "a=sendonly" in video
    assert data[0].startswith("m=application 0 ")


def test_a_viewer_s_audio_section_gets_voice() -> None:
    audio = AUDIO.replace("a=rtcp-mux\n", "a=rtcp-mux\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\n")
    offer = parse_offer(description(audio, VIDEO, group="a v"))
    session, voice, video = parts(answer_to(offer, ACCEPTED + ACCEPTED_VOICE))
    assert "a=group:BUNDLE a v" in session
    assert voice == [
        "m=audio 41003 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 198.51.100.2",
        "a=sendonly",
        "a=mid:a",
        "a=msid:stream voice",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=ssrc:2 cname:ours",
        "a=rtcp-mux",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1",
        "a=candidate:f1 1 udp 2130706431 198.51.100.2 41003 typ host",
        "a=end-of-candidates",
        *REFUSAL,
    ]
    assert video[0].startswith("m=video 41003 ")


def test_a_speaker_is_answered_with_voice_and_data_and_nothing_else() -> None:
    offer = parse_speaker_offer(description(VIDEO, AUDIO, DATA, ODD, group="v a d"))
    accepted = SESSION_LINES + ACCEPTED_VOICE + ACCEPTED_DATA
    session, video, voice, data, odd = parts(speaker_answer_to(offer, accepted, 512))
    assert "a=group:BUNDLE v a d" in session
    assert video[0].startswith("m=video 41003 ") and "a=inactive" in video  # it carries the connection
    assert voice[0] == "m=audio 41003 UDP/TLS/RTP/SAVPF 111" and "a=recvonly" in voice
    assert "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1" in voice
    assert not any(line.startswith(("a=msid", "a=ssrc")) for line in voice)
    assert data[:5] == [
        "m=application 41003 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 198.51.100.2",
        "a=mid:d",
        "a=sctp-port:5000",
        "a=max-message-size:512",
    ]
    assert odd[0] == "m=x-hologram 0 X/Y 1 2 3" and "a=inactive" in odd


def test_without_a_group_the_answer_has_none() -> None:
    session, audio, video = answer(AUDIO, VIDEO, group=None)
    assert not any(line.startswith("a=group") for line in session)
    assert audio[0].startswith("m=audio 0 ") and video[0].startswith("m=video 41003 ")


def test_without_a_mid_the_answer_has_none() -> None:
    _, video = answer(VIDEO.replace("a=mid:v\n", ""), group=None)
    assert not any(line.startswith(("a=mid", "a=extmap")) for line in video)


@pytest.mark.parametrize("policy", list(RTCBundlePolicy))
@pytest.mark.parametrize(
    "steps",
    [
        ["video recvonly"],
        ["audio recvonly", "video recvonly"],
        ["video recvonly", "audio sendrecv", "video sendonly"],
        ["video sendonly", "video recvonly"],
    ],
    ids=" + ".join,
)
async def test_aiortc_takes_the_answer(policy: RTCBundlePolicy, steps: list[str]) -> None:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))
    server = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    for kind, direction in map(str.split, steps):
        viewer.addTransceiver(kind, direction=direction)
    await viewer.setLocalDescription(await viewer.createOffer())
    offer = parse_offer(viewer.localDescription.sdp)
    transceiver = server.addTransceiver(PassthroughTrack(), direction="sendonly")
    transceiver.setCodecPreferences(h264_preferences())
    if offer.voice is not None:
        server.addTransceiver(PassthroughTrack("audio"), direction="sendonly").setCodecPreferences(opus_preferences())
    assert (offer.voice is not None) == any(step in {"audio recvonly", "audio sendrecv"} for step in steps)
    await server.setRemoteDescription(RTCSessionDescription(offer.reduced, "offer"))
    await server.setLocalDescription()
    assert {one.currentDirection for one in server.getTransceivers()} == {"sendonly"}
    answered = answer_to(offer, server.localDescription.sdp)
    await viewer.setRemoteDescription(RTCSessionDescription(answered, "answer"))
    async with asyncio.timeout(20):
        while server.connectionState != "connected":
            await asyncio.sleep(0.01)
    await viewer.close()
    await server.close()


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
