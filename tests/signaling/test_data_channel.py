"""Which data channel is the one for motion (RFC 8832)."""

from __future__ import annotations

import struct

import pytest

from mien_signaling.data_channel import ChannelOpen, parse_open


def opening(label: bytes, kind: int = 0x81, reliability: int = 0, protocol: bytes = b"") -> bytes:
    return struct.pack("!BBHLHH", 3, kind, 0, reliability, len(label), len(protocol)) + label + protocol


@pytest.mark.parametrize(
    ("data", "is_motion"),
    [
        (opening(b"motion"), True),
        (opening(b"motion", protocol=b"mien.v1"), True),
        (opening(b"motion", kind=0x01), False),
        (opening(b"motion", kind=0x80), False),
        (opening(b"motion", kind=0x82), False),
        (opening(b"motion", reliability=1), False),
        (opening(b"Motion"), False),
        (opening(b""), False),
        (opening(b"\xff\xfe"), False),
        (opening(b"m" * 60_000), False),
    ],
)
def test_only_one_kind_of_channel_is_ours(data: bytes, is_motion: bool) -> None:
    opened = parse_open(data)
    assert isinstance(opened, ChannelOpen) and opened.is_motion == is_motion


@pytest.mark.parametrize(
    "data", [b"", b"\x02", opening(b"motion")[:-1], opening(b"motion") + b"!", b"\x04" + bytes(20)]
)
def test_what_opens_no_channel(data: bytes) -> None:
    assert parse_open(data) is None
