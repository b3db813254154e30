from __future__ import annotations

import pytest

from mien_signaling.h264_format import H264Format, NoFormat, choose
from mien_signaling.sdp import Section, sections_of

GOOD = "packetization-mode=1;profile-level-id=42e01f"


def section(formats: str, *attributes: str) -> Section:
    lines = [f"m=video 9 UDP/TLS/RTP/SAVPF {formats}", *(f"a={attribute}" for attribute in attributes)]
    return sections_of("\r\n".join(lines))[1]


def one(parameters: str) -> Section:
    return section("102", "rtpmap:102 H264/90000", f"fmtp:102 {parameters}")


def test_a_format_as_browsers_offer_it() -> None:
    found = choose(
        section(
            "96 97 102 103",
            "rtpmap:96 VP8/90000",
            "rtpmap:97 rtx/90000",
            "fmtp:97 apt=96",
            "rtpmap:102 H264/90000",
            "rtcp-fb:102 goog-remb",
            "rtcp-fb:102 transport-cc",
            "rtcp-fb:102 nack pli",
            "rtcp-fb:102 nack",
            f"fmtp:102 level-asymmetry-allowed=1;{GOOD}",
            "rtpmap:103 rtx/90000",
            "fmtp:103 apt=102",
        )
    )
    parameters = f"level-asymmetry-allowed=1;{GOOD}"
    assert found == H264Format(102, parameters, ("nack", "nack pli", "goog-remb"), 103)
    assert found.payload_types() == "102 103"
    assert found.lines() == [
        "a=rtpmap:102 H264/90000",
        "a=rtcp-fb:102 nack",
        "a=rtcp-fb:102 nack pli",
        "a=rtcp-fb:102 goog-remb",
        f"a=fmtp:102 {parameters}",
        "a=rtpmap:103 rtx/90000",
        "a=fmtp:103 apt=102",
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        "profile-level-id=42e01f;packetization-mode=1",
        "packetization-mode=1; profile-level-id=42e01f",
        " packetization-mode = 1 ;profile-level-id = 42e01f;",
        "Packetization-Mode=1;PROFILE-LEVEL-ID=42e01f",
        "sprop-parameter-sets=Z0IACpZTBYmI,aMljiA==;packetization-mode=1;profile-level-id=42e01f",
    ],
)
def test_parameters_in_any_order_and_with_blanks(parameters: str) -> None:
    found = choose(one(parameters))
    assert (found.parameters, found.rtx_payload_type, found.payload_types()) == (GOOD, None, "102")


def test_what_the_offer_leaves_out_the_answer_leaves_out() -> None:
    assert choose(one("packetization-mode=1")).parameters == "packetization-mode=1"


def test_lines_in_any_order_and_a_codec_in_any_case() -> None:
    found = choose(
        section("103 102", "fmtp:103 apt=102", f"fmtp:102 {GOOD}", "rtpmap:103 RTX/90000", "rtpmap:102  h264/90000")
    )
    assert (found.payload_type, found.rtx_payload_type) == (102, 103)


def test_feedback_for_every_format() -> None:
    asked = section("102", "rtpmap:102 H264/90000", f"fmtp:102 {GOOD}", "rtcp-fb:* nack", "rtcp-fb:* ccm fir")
    assert choose(asked).feedback == ("nack",)


@pytest.mark.parametrize(
    ("profiles", "chosen"),
    [
        (["42001f", "42e01f"], "42e01f"),
        (["640c1f", "4d001f", "42001f"], "42001f"),
        (["640032", "4d401f"], "4d401f"),
        (["64001f"], "64001f"),
        (["4d801f", "42c01f"], "4d801f"),  # both are constrained baseline: the offer's order decides
        (["f4001f", "42E01F"], "42E01F"),
        (["42e01", "42e01f"], "42e01f"),
    ],
)
def test_the_profile_nearest_to_ours(profiles: list[str], chosen: str) -> None:
    formats = [str(number) for number in range(35, 35 + len(profiles))]
    attributes = [f"rtpmap:{number} H264/90000" for number in formats]
    attributes += [
        f"fmtp:{number} packetization-mode=1;profile-level-id={profile}"
        for number, profile in zip(formats, profiles, strict=True)
    ]
    found = choose(section(" ".join(formats), *attributes))
    assert found.parameters == f"packetization-mode=1;profile-level-id={chosen}"
    assert found.payload_type == 35 + profiles.index(chosen)


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        (section("96", "rtpmap:96 VP8/90000"), "the offer has no H264 video codec"),
        (section("102", "rtpmap:102 H264/8000"), "the offer has no H264 video codec"),
        (section("103", "rtpmap:102 H264/90000", f"fmtp:102 {GOOD}"), "the offer has no H264 video codec"),
        (section("72", "rtpmap:72 H264/90000", f"fmtp:72 {GOOD}"), "the offer has no H264 video codec"),
        (section("128", "rtpmap:128 H264/90000", f"fmtp:128 {GOOD}"), "the offer has no H264 video codec"),
        (section("102", "rtpmap:102 H264/90000"), "packetization-mode 0 or 2"),
        (one("profile-level-id=42e01f"), "packetization-mode 0 or 2"),
        (one("packetization-mode=0"), "packetization-mode 0 or 2"),
        (one("packetization-mode=2;profile-level-id=42e01f"), "packetization-mode 0 or 2"),
        (one("packetization-mode=1;profile-level-id=f4001f"), "cannot decode constrained baseline"),
        (one("packetization-mode=1;profile-level-id=nonsense"), "cannot decode constrained baseline"),
    ],
)
def test_formats_in_which_we_cannot_send(offered: Section, message: str) -> None:
    with pytest.raises(NoFormat, match=message):
        choose(offered)
