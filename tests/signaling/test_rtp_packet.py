"""RTP and RTCP from a stranger: what is read, and what is refused without an exception of another kind."""

from __future__ import annotations

import struct

import pytest
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensions, HeaderExtensionsMap, RtcpSenderInfo, RtcpSrPacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.opus_format import LEVEL_EXTENSION
from mien_signaling.rtp_packet import BadRtp, ntp_of, parse_rtp, sender_reports

LEVEL_ID = 10


def packed(level: int | None, **fields: object) -> bytes:
    """A packet as aiortc writes it."""
    extensions = HeaderExtensionsMap()
    extension = RTCRtpHeaderExtensionParameters(id=LEVEL_ID, uri=LEVEL_EXTENSION)
    extensions.configure(RTCRtpParameters(headerExtensions=[extension]))
    packet = RtpPacket(payload_type=111, marker=1, sequence_number=65535, timestamp=2**32 - 1, ssrc=7, payload=b"opus")
    packet.extensions = HeaderExtensions(audio_level=None if level is None else (True, level))
    for name, value in fields.items():
        setattr(packet, name, value)
    return bytes(packet.serialize(extensions))


@pytest.mark.parametrize("level", [None, 0, 30, 127])
def test_a_packet_is_read_as_aiortc_wrote_it(level: int | None) -> None:
    rtp = parse_rtp(packed(level), LEVEL_ID)
    assert rtp == (111, True, 65535, 2**32 - 1, 7, level, b"opus")
    assert parse_rtp(packed(level), None).level is None


def test_padding_and_contributing_sources_are_no_payload() -> None:
    assert parse_rtp(packed(5, csrc=[1, 2, 3], padding_size=7), LEVEL_ID)[5:] == (5, b"opus")


def test_a_two_byte_extension_header_is_read() -> None:
    extension = bytes([3, 0, LEVEL_ID, 1, 0x80 | 40, 0, 0, 0])
    data = struct.pack("!BBHLL", 0x90, 111, 1, 2, 3) + struct.pack("!HH", 0x1000, 2) + extension + b"opus"
    assert parse_rtp(data, LEVEL_ID)[5:] == (40, b"opus")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "at least 12 bytes"),
        (bytes(11), "at least 12 bytes"),
        (bytes(12), "version is not 2"),
        (bytes([0x8F]) + bytes(11), "longer than the packet"),
        (bytes([0x90]) + bytes(11), "cut short"),
        (bytes([0x90]) + bytes(11) + struct.pack("!HH", 0xBEDE, 400), "longer than the packet"),
        (bytes([0xA0]) + bytes(12), "longer than the packet"),  # padding of no bytes
        (bytes([0xA0]) + bytes(11) + b"\xff", "longer than the packet"),
    ],
)
def test_what_is_no_rtp_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(BadRtp, match=text):
        parse_rtp(data, LEVEL_ID)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    for data in (tail, bytes([0x90, 111]) + bytes(10) + b"\xbe\xde\x00\x02" + tail):
        try:
            parse_rtp(data, LEVEL_ID)
        except BadRtp:
            pass
        sender_reports(data, 1.7e9)


def report(unix_s: float, ssrc: int = 7, timestamp: int = 48_000) -> bytes:
    info = RtcpSenderInfo(ntp_timestamp=ntp_of(unix_s), rtp_timestamp=timestamp, packet_count=1, octet_count=2)
    return bytes(RtcpSrPacket(ssrc=ssrc, sender_info=info))


@pytest.mark.parametrize("unix_s", [0.5, 1_700_000_000.25, 2_085_978_495.5, 2_085_978_497.5, 4_000_000_000.0])
def test_a_sender_report_names_unix_time_in_every_era(unix_s: float) -> None:
    (found,) = sender_reports(report(unix_s), unix_s + 100)
    assert found.unix_s == pytest.approx(unix_s, abs=1e-5)
    assert (found.ssrc, found.timestamp) == (7, 48_000)
    assert found.ntp_middle == ntp_of(unix_s) >> 16 & 0xFFFF_FFFF


def test_other_reports_and_what_is_cut_short_are_left_out() -> None:
    whole = report(1.7e9)
    assert sender_reports(b"\x80\xc9\x00\x01" + bytes(4) + whole, 1.7e9)
    assert sender_reports(whole[:-1], 1.7e9) == []
    assert sender_reports(bytes([0x40]) + whole[1:], 1.7e9) == []
    assert sender_reports(b"\x80\xc8\x00\x01" + bytes(4), 1.7e9) == []
