from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264PayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.rtp_h264 import MAX_PAYLOAD_BYTES, NotAnnexB, packetise, units_of

STAP_A, FU_A = 24, 28


def encoded(count: int) -> list[bytes]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 180, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "crf": "10"}
    random = np.random.default_rng(0)
    frames = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (180, 320, 3), np.uint8), "rgb24")
        frame.pts = index
        frames.append(b"".join(bytes(packet) for packet in encoder.encode(frame)))
    return frames


def depacketised(payloads: list[bytes]) -> bytes:
    """What a receiver puts together, by aiortc's own depacketiser."""
    return b"".join(H264PayloadDescriptor.parse(payload)[1] for payload in payloads)


def annex_b(units: list[bytes]) -> bytes:
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in units)


# NAL units as they are in a stream: a header, no start code inside, no zero at the end.
nals = st.builds(
    lambda kind, importance, body: bytes([importance << 5 | kind]) + body.replace(b"\x00", b"\x01") + b"\x80",
    st.integers(1, 12),
    st.integers(0, 3),
    st.binary(max_size=4000),
)


@given(st.lists(nals, min_size=1, max_size=8), st.integers(100, 1400))
def test_what_is_packetised_can_be_put_together_again(units: list[bytes], max_payload_bytes: int) -> None:
    payloads = packetise(annex_b(units), max_payload_bytes)
    assert units_of(depacketised(payloads)) == units
    assert all(len(payload) <= max_payload_bytes for payload in payloads)


def test_a_real_stream_still_decodes() -> None:
    decoder = av.CodecContext.create("h264", "r")
    shown = 0
    for data in encoded(5):
        payloads = packetise(data)
        assert max(map(len, payloads)) <= MAX_PAYLOAD_BYTES
        shown += len(decoder.decode(av.Packet(depacketised(payloads))))
    shown += len(decoder.decode(None))
    assert shown == 5


def test_parameter_sets_travel_together() -> None:
    first, *rest = packetise(encoded(1)[0])
    assert first[0] & 0x1F == STAP_A
    assert {payload[0] & 0x1F for payload in rest} == {FU_A}


def test_a_stap_a_is_as_important_as_its_most_important_part() -> None:
    (payload,) = packetise(annex_b([b"\x06sei", b"\x67sps"]))
    assert payload == b"\x78\x00\x04\x06sei\x00\x04\x67sps"


def test_fragments_are_of_even_length_and_marked() -> None:
    payloads = packetise(annex_b([b"\x65" + b"x" * 2500]))
    assert [payload[1] for payload in payloads] == [0x85, 0x05, 0x45]
    assert {payload[0] for payload in payloads} == {0x7C}
    assert max(map(len, payloads)) - min(map(len, payloads)) <= 1


def test_short_and_long_start_codes_and_padding() -> None:
    assert units_of(b"\x00\x00\x01\x67a\x00\x00\x00\x01\x68b\x00\x00") == [b"\x67a", b"\x68b"]


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x05\x65avcc", b"\x00\x00\x01", b"\x00\x00\x00"])
def test_what_is_not_annex_b(data: bytes) -> None:
    with pytest.raises(NotAnnexB, match="the frame does not begin with an Annex-B start code"):
        packetise(data)
