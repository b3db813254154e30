from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signaling.offers import AUDIO, DATA, ODD, SESSION, VIDEO, bundle_only, changed, description

from mien_signaling.offer import UnacceptableOffer, UnreadableOffer, Voice, parse_offer
from mien_signaling.opus_format import LEVEL_EXTENSION, MID_EXTENSION, OpusFormat
from mien_signaling.sdp import MAX_CANDIDATES, IceCandidate

OFFER = description(VIDEO, group="v")
CANDIDATE = "a=candidate:1 1 udp 2122260223 192.0.2.1 60001 typ host generation 0"


def test_aiortc_gets_one_section_in_our_words() -> None:
    offer = parse_offer(OFFER)
    assert offer.ufrags == {"vfrag"}
    assert offer.reduced.splitlines() == [
        "v=0",
        "o=- 0 0 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE v",
        "m=video 9 UDP/TLS/RTP/SAVPF 97 98",
        "c=IN IP4 0.0.0.0",
        "a=recvonly",
        "a=mid:v",
        "a=rtcp-mux",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=rtpmap:97 H264/90000",
        "a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "a=rtpmap:98 rtx/90000",
        "a=fmtp:98 apt=97",
        "a=ice-ufrag:vfrag",
        "a=ice-pwd:vP2uYro0UCOQ4zxjKXaWCBui1",
        "a=fingerprint:sha-256 AA:BB",
        "a=setup:actpass",
        CANDIDATE,  # and none with a name
    ]


@pytest.mark.parametrize(
    "others",
    [
        (AUDIO.replace("opus", "G722"),),
        (changed(AUDIO, direction="sendonly"),),
        (changed(AUDIO, direction="inactive"),),
        (AUDIO.replace("a=mid:a\n", ""),),
        (DATA,),
        (ODD,),
        (changed(VIDEO, mid="w"),),
        (changed(VIDEO, mid="w", direction="sendonly"), changed(VIDEO, mid="x", direction="sendrecv"), DATA),
        (AUDIO.replace("m=audio 9", "m=audio 0"),),
        (AUDIO.replace("UDP/TLS/RTP/SAVPF", "RTP/UNKNOWN"),),
        (AUDIO.replace("a=rtcp-mux\n", ""), ODD, DATA.replace("webrtc-datachannel", "5000")),
        (changed(VIDEO, mid="w").replace("H264", "H266"),),
    ],
)
@pytest.mark.parametrize("group", [True, False])
def test_what_else_is_offered_never_reaches_aiortc(others: tuple[str, ...], group: bool) -> None:
    mids = [line.removeprefix("a=mid:") for part in others for line in part.splitlines() if line.startswith("a=mid:")]
    offer = parse_offer(description(VIDEO, *others, group=" ".join(["v", *mids]) if group else None))
    assert offer.reduced == parse_offer(OFFER).reduced
    assert (offer.chosen, offer.carrier) == (0, None)


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
def test_a_section_that_does_not_receive_is_passed_over(direction: str) -> None:
    offer = parse_offer(description(changed(VIDEO, mid="w", direction=direction), VIDEO, group="w v"))
    assert (offer.chosen, offer.carrier) == (1, 0)  # the first one still carries the connection
    assert "a=ice-ufrag:vfrag" in offer.reduced


def test_a_section_that_cannot_be_used_is_passed_over() -> None:
    unusable = changed(VIDEO, mid="w").replace("packetization-mode=1", "packetization-mode=0")
    assert parse_offer(description(unusable, VIDEO)).chosen == 1
    with pytest.raises(UnacceptableOffer, match="packetization-mode"):
        parse_offer(description(unusable))


@pytest.mark.parametrize("shared_lines", [True, False])
def test_a_bundle_only_section_gets_the_connection_of_its_group(shared_lines: bool) -> None:
    offer = parse_offer(description(AUDIO, bundle_only(VIDEO, shared_lines=shared_lines), group="a v"))
    assert (offer.chosen, offer.carrier, offer.bundle) == (1, 0, (0, 1))
    assert "a=ice-ufrag:afrag" in offer.reduced
    assert "192.0.2.1 60002 typ host" in offer.reduced
    assert "60001" not in offer.reduced


def test_a_section_beside_its_group_has_a_connection_of_its_own() -> None:
    offer = parse_offer(description(AUDIO, DATA, VIDEO, group="a d"))
    assert (offer.chosen, offer.carrier, offer.bundle) == (2, None, ())
    assert "a=ice-ufrag:vfrag" in offer.reduced


def test_data_cannot_carry_the_connection() -> None:
    offer = parse_offer(description(DATA, VIDEO, group="d v"))
    assert (offer.chosen, offer.carrier) == (1, None)
    assert "a=ice-ufrag:vfrag" in offer.reduced
    # A section without a connection borrows that of the data: without it there would be no picture.
    lonely = parse_offer(description(DATA, bundle_only(VIDEO, shared_lines=False), group="d v"))
    assert lonely.carrier is None
    assert "a=ice-ufrag:dfrag" in lonely.reduced and "60003 typ host" in lonely.reduced


def test_credentials_may_stand_above_the_media() -> None:
    line = "a=ice-ufrag:vfrag\n"
    moved = description(VIDEO.replace(line, "")).replace("t=0 0\r\n", "t=0 0\r\na=ice-ufrag:vfrag\r\n")
    assert "a=ice-ufrag:vfrag" in parse_offer(moved).reduced


def test_a_direction_may_stand_above_the_media() -> None:
    above = description(VIDEO.replace("a=recvonly\n", "")).replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n")
    with pytest.raises(UnacceptableOffer, match="no video section that receives"):
        parse_offer(above)


def test_without_a_direction_a_section_sends_and_receives() -> None:
    assert parse_offer(description(VIDEO.replace("a=recvonly\n", ""))).chosen == 0


def test_without_a_mid_no_extension_says_one() -> None:
    offer = parse_offer(description(VIDEO.replace("a=mid:v\n", "")))
    assert "extmap" not in offer.reduced


def test_a_lite_viewer_and_one_that_opens_the_connection() -> None:
    lite = description(VIDEO.replace("actpass", "active")).replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n")
    reduced = parse_offer(lite).reduced
    assert "a=ice-lite" in reduced and "a=setup:active" in reduced


def test_the_end_of_candidates_is_never_passed_on() -> None:
    assert "end-of-candidates" not in parse_offer(description(VIDEO + "a=end-of-candidates\n")).reduced


def test_line_feeds_alone_will_do() -> None:
    assert parse_offer(OFFER.replace("\r\n", "\n")).reduced == parse_offer(OFFER).reduced


@pytest.mark.parametrize(
    ("mid", "mline_index", "owned"),
    [("a", None, True), ("v", None, True), ("d", None, False), (None, 0, True), (None, 2, True), (None, 1, False)],
)
def test_candidates_of_the_shared_connection_are_ours(mid: str | None, mline_index: int | None, owned: bool) -> None:
    offer = parse_offer(description(AUDIO, DATA, VIDEO, group="a v"))
    assert offer.owns(IceCandidate("", "192.0.2.1", mid, mline_index)) is owned


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("v=0\r\n", "", "the body is not an SDP description"),
        ("s=-", "what is this", "the body is not an SDP description"),
        ("m=video 9 ", "m=video nine ", "the body is not an SDP description"),
        ("SAVPF 96 102 103", "SAVPF", "the body is not an SDP description"),
        (CANDIDATE, "a=candidate:1 1 udp", "a candidate of the offer cannot be read"),
        (CANDIDATE, f"{CANDIDATE} rport 1x", "a candidate of the offer cannot be read"),
        ("a=mid:v", "a=mid:v w", "a mid of the offer cannot be read"),
        ("a=mid:v", "a=mid:" + 33 * "v", "a mid of the offer cannot be read"),
        ("a=ice-ufrag:vfrag", "a=ice-ufrag:two words", "the ICE credentials of the offer cannot be read"),
        ("a=ice-ufrag:vfrag", "a=ice-ufrag:" + 257 * "v", "the ICE credentials of the offer cannot be read"),
    ],
)
def test_an_offer_that_cannot_be_read(old: str, new: str, message: str) -> None:
    assert old in OFFER
    with pytest.raises(UnreadableOffer, match=message):
        parse_offer(OFFER.replace(old, new))


def test_two_sections_of_one_name() -> None:
    with pytest.raises(UnreadableOffer, match="two media sections of the offer have the same mid"):
        parse_offer(description(VIDEO, VIDEO))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("m=video 9", "m=audio 9", "no video section that receives"),
        ("m=video 9", "m=video 0", "no video section that receives"),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96 102 103\r\n", "m=video 0 X 102\r\na=bundle-only\r\n", "no video section that"),
        ("a=recvonly", "a=inactive", "no video section that receives"),
        ("a=recvonly", "a=sendonly", "no video section that receives"),
        ("a=rtpmap:102 H264/90000\r\n", "", "no H264 video codec"),
        ("UDP/TLS/RTP/SAVPF", "RTP/UNKNOWN", "a protocol other than RTP over DTLS"),
        ("a=ice-ufrag:vfrag\r\n", "", "the offer's video section has no ice-ufrag"),
        ("a=ice-pwd:vP2uYro0UCOQ4zxjKXaWCBui1\r\n", "", "the offer's video section has no ice-pwd"),
        ("a=fingerprint:sha-256 AA:BB\r\n", "", "the offer's video section has no fingerprint"),
        ("sha-256 AA:BB", "md5 AA:BB", "no fingerprint of sha-256, sha-384 or sha-512"),
        ("actpass", "holdconn", "setup attribute is not actpass, active or passive"),
        ("a=rtcp-mux\r\n", "", "the offer's video section has no rtcp-mux"),
        (CANDIDATE, "\r\n".join([CANDIDATE] * (MAX_CANDIDATES + 1)), "more than 32 candidates"),
        ("BUNDLE v", "BUNDLE 1 v", "the offer's BUNDLE group names a media section that the offer does not have"),
    ],
)
def test_an_offer_that_cannot_be_taken(old: str, new: str, message: str) -> None:
    assert old in OFFER
    with pytest.raises(UnacceptableOffer, match=message):
        parse_offer(OFFER.replace(old, new))


def test_an_offer_of_nothing_and_of_too_much() -> None:
    with pytest.raises(UnacceptableOffer, match="the offer has no media section"):
        parse_offer(SESSION)
    with pytest.raises(UnacceptableOffer, match="more than 8 media sections"):
        parse_offer(description(*(changed(VIDEO, mid=str(number)) for number in range(9))))


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises((UnreadableOffer, UnacceptableOffer)):
        parse_offer(text)


def test_a_bundled_audio_section_gets_voice() -> None:
    audio = AUDIO.replace(
        "a=rtcp-mux\n", f"a=rtcp-mux\na=extmap:1 {LEVEL_EXTENSION}\na=extmap:4/recvonly {MID_EXTENSION}\n"
    )
    offer = parse_offer(description(audio, VIDEO, group="a v"))
    assert (offer.chosen, offer.carrier) == (1, 0)
    assert offer.served == {0, 1}
    assert offer.voice == Voice(0, "a", OpusFormat(111, mid_id=4, level_id=1))
    video, voice = offer.reduced.split("m=audio ")
    assert "a=group:BUNDLE v a" in video
    for section in (video, voice):  # aiortc takes the candidates of the last section that shares a transport
        assert "a=ice-ufrag:afrag" in section and "60002 typ host" in section and "a=recvonly" in section


def test_audio_outside_of_the_video_s_group_has_no_connection_of_its_own() -> None:
    for group in (None, "v", "a"):
        offer = parse_offer(description(AUDIO, VIDEO, group=group))
        assert offer.voice is None and "m=audio" not in offer.reduced


def test_only_the_first_audio_section_gets_voice() -> None:
    offer = parse_offer(description(VIDEO, AUDIO, changed(AUDIO, mid="b"), group="v a b"))
    assert offer.voice is not None and offer.voice.index == 1
    assert offer.reduced.count("m=audio") == 1


@pytest.mark.parametrize("number", ["64", "95", "128", "x"])
def test_opus_under_a_number_that_cannot_be_used_is_passed_over(number: str) -> None:
    audio = AUDIO.replace("111", number)
    assert parse_offer(description(VIDEO, audio, group="v a")).voice is None
