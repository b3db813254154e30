"""WHIP offers: what is served, and every reason for a refusal. aiortc gets nothing else."""

from __future__ import annotations

import pytest
from signaling.offers import AUDIO, DATA, ODD, VIDEO, changed, description

from mien_signaling.offer_parts import UnacceptableOffer, UnreadableOffer
from mien_signaling.sdp import IceCandidate
from mien_signaling.speaker_offer import parse_speaker_offer

NOTHING = "neither an audio section that sends Opus nor one for data channels"


def test_voice_and_data_are_served() -> None:
    offer = parse_speaker_offer(description(AUDIO, DATA, group="a d"))
    assert (offer.voice, offer.data, offer.carrier) == (0, 1, None)
    assert offer.served == {0, 1}
    assert offer.opus is not None and offer.opus.payload_type == 111
    assert [line for line in offer.reduced.splitlines() if line.startswith(("m=", "a=group", "a=sendonly"))] == [
        "a=group:BUNDLE a d",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=sendonly",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    ]


@pytest.mark.parametrize(
    "others",
    [(VIDEO,), (ODD,), (changed(AUDIO, mid="b"),), (changed(DATA, mid="e"),), (changed(VIDEO, mid="w"), VIDEO, ODD)],
)
def test_what_else_is_offered_never_reaches_aiortc(others: tuple[str, ...]) -> None:
    mids = [line.removeprefix("a=mid:") for part in others for line in part.splitlines() if line.startswith("a=mid:")]
    offer = parse_speaker_offer(description(AUDIO, DATA, *others, group=" ".join(["a", "d", *mids])))
    assert offer.reduced == parse_speaker_offer(description(AUDIO, DATA, group="a d")).reduced


def test_either_alone_is_enough() -> None:
    voice, data = parse_speaker_offer(description(AUDIO)), parse_speaker_offer(description(DATA))
    assert (voice.voice, voice.data) == (0, None) and "m=application" not in voice.reduced
    assert (data.voice, data.data) == (None, 0) and "m=audio" not in data.reduced


@pytest.mark.parametrize(
    ("sections", "group", "text"),
    [
        ([VIDEO], None, NOTHING),
        ([changed(AUDIO, direction="recvonly")], None, NOTHING),
        ([AUDIO.replace("opus", "G722")], None, NOTHING),
        ([AUDIO.replace("m=audio 9", "m=audio 0")], None, NOTHING),
        ([AUDIO.replace("UDP/TLS/RTP/SAVPF", "RTP/UNKNOWN")], None, NOTHING),
        ([DATA.replace("UDP/DTLS/SCTP", "SCTP")], None, NOTHING),
        ([DATA.replace("webrtc-datachannel", "5000")], None, NOTHING),
        ([AUDIO, DATA], None, "not in one BUNDLE group"),
        ([AUDIO, DATA], "a", "not in one BUNDLE group"),
        ([AUDIO.replace("a=rtcp-mux\n", "")], None, "audio section has no rtcp-mux"),
        ([DATA.replace("a=ice-pwd:dP2uYro0UCOQ4zxjKXaWCBui1\n", "")], None, "data section has no ice-pwd"),
    ],
)
def test_an_offer_that_cannot_be_served(sections: list[str], group: str | None, text: str) -> None:
    with pytest.raises(UnacceptableOffer, match=text):
        parse_speaker_offer(description(*sections, group=group))


@pytest.mark.parametrize("port", ["0", "65536", "-1", "5000 ", "x"])
def test_a_wrong_port_of_sctp(port: str) -> None:
    offer = description(DATA.replace("a=sctp-port:5000", f"a=sctp-port:{port}"))
    if port.strip() == "5000":
        assert "a=sctp-port:5000" in parse_speaker_offer(offer).reduced
    else:
        with pytest.raises(UnreadableOffer, match="sctp-port"):
            parse_speaker_offer(offer)


def test_candidates_of_every_bundled_section_are_ours() -> None:
    offer = parse_speaker_offer(description(VIDEO, AUDIO, DATA, group="v a d"))
    assert offer.carrier == 0
    assert all(offer.owns(IceCandidate("", "192.0.2.1", mid)) for mid in ("v", "a", "d"))
    assert not offer.owns(IceCandidate("", "192.0.2.1", "x"))
