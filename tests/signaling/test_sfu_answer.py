"""What a publication does with the answers of SFUs, before aiortc sees them."""

from __future__ import annotations

import pytest

from mien_signaling.sfu_publication import UnusableAnswer, VoiceRefused, read_answer

_HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
_ALONE = _HEAD.replace("BUNDLE 0 1", "BUNDLE 0")
_VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 99\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n"
    "a=rtpmap:99 H264/90000\r\na=fmtp:99 profile-level-id=42e01f;packetization-mode=1\r\n"
)
_AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n"
    "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:111 opus/48000/2\r\n"
)


def test_an_answer_names_the_payload_types_and_extensions_that_are_used() -> None:
    video, voice = read_answer(_HEAD + _VIDEO + _AUDIO, with_voice=True)
    assert video.payload_type == 99
    assert voice is not None
    assert (voice.mid, voice.format.payload_type, voice.format.mid_id) == ("1", 111, 3)
    assert read_answer(_ALONE + _VIDEO, with_voice=False)[1] is None


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        ("", "not an SDP description"),
        ("<html>", "not an SDP description"),
        (_HEAD, "media sections"),
        (_HEAD + _AUDIO + _VIDEO, "sections of our offer"),
        (_ALONE + _VIDEO, "sections of our offer"),
        (_HEAD + _VIDEO.replace("recvonly", "inactive") + _AUDIO, "does not receive video"),
        (_HEAD + _VIDEO.replace("video 9", "video 0") + _AUDIO, "does not receive video"),
        (_HEAD + _VIDEO.replace("packetization-mode=1", "packetization-mode=0") + _AUDIO, "takes no H.264"),
        (_HEAD + _VIDEO.replace("H264", "VP8") + _AUDIO, "takes no H.264"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(answer: str, flaw: str) -> None:
    with pytest.raises(UnusableAnswer, match=flaw):
        read_answer(answer, with_voice=True)


@pytest.mark.parametrize(
    "audio",
    [_AUDIO.replace("audio 9", "audio 0"), _AUDIO.replace("recvonly", "inactive"), _AUDIO.replace("opus", "PCMU")],
)
def test_an_sfu_that_refuses_voice_is_offered_the_picture_alone(audio: str) -> None:
    with pytest.raises(VoiceRefused):
        read_answer(_HEAD + _VIDEO + audio, with_voice=True)
