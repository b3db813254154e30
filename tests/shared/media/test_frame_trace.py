"""The frame trace: written into a real stream and read back from what a real decoder hands over."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.media.annexb import NalType, escape, is_picture, nal_type, nal_units, unescape
from mien_shared.media.frame_trace import TRACE_UUID, FrameTrace, TraceError, insert_trace, read_trace
from mien_shared.media.user_data import AccessUnitError

TRACE = FrameTrace(123_456_789, 65_535, True, 1_500, 2_100, 160, 1_700)
U32 = st.integers(0, 2**32 - 1)
TRACES = st.builds(FrameTrace, U32, st.integers(0, 2**16 - 1), st.booleans(), U32, U32, U32, U32)


def access_units(count: int) -> list[bytes]:
    """A small real stream, the first picture an IDR with parameter sets and the codec's own SEI."""
    context = av.video.codeccontext.VideoCodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.time_base = Fraction(1, 30)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "x264-params": "log=0"}
    units = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), 40 * i, np.uint8), format="yuv420p")
        frame.pts = i
        units += [bytes(packet) for packet in context.encode(frame)]
    return units


@given(TRACES)
def test_what_goes_in_comes_out(trace: FrameTrace) -> None:
    assert FrameTrace.unpack(trace.pack()) == trace


@given(TRACES)
def test_it_comes_out_of_an_access_unit_too(trace: FrameTrace) -> None:
    slice_unit = b"\0\0\1\x65\x88\x84"
    assert read_trace(insert_trace(slice_unit, trace)) == trace


def test_the_layout_is_fixed() -> None:
    assert TRACE.pack().hex() == (
        "6d69656e74724163b1a50f3c5e8d2a71"
        + "15cd5b07"
        + "ffff"
        + "01"
        + "01"
        + "dc050000"
        + "34080000"
        + "a0000000"
        + "a4060000"
    )


def test_a_decoder_hands_it_over_with_the_picture() -> None:
    decoder = av.video.codeccontext.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    seen = []
    for i, unit in enumerate(access_units(4)):
        trace = FrameTrace(1000 + i, i, i == 2, 0, 3, 0, 256)
        for frame in decoder.decode(av.Packet(insert_trace(unit, trace))):
            container = cast("SideDataContainer", frame.side_data)
            entries = [container[i] for i in range(len(container))]
            payloads = [bytes(entry) for entry in entries if entry.type == SideDataType.SEI_UNREGISTERED]
            seen += [trace for trace in map(FrameTrace.unpack, payloads) if trace is not None]
    assert [(trace.capture_ms, trace.sequence, trace.is_stalled) for trace in seen] == [
        (1000, 0, False),
        (1001, 1, False),
        (1002, 2, True),
        (1003, 3, False),
    ]
    assert seen[0].encode_us == 256


def test_it_lies_between_the_parameter_sets_and_the_picture() -> None:
    unit = insert_trace(access_units(1)[0], TRACE)
    kinds = [nal_type(nal) for _, nal in nal_units(unit)]
    assert kinds[:2] == [NalType.SPS, NalType.PPS]
    assert kinds[-2:] == [NalType.SEI, NalType.IDR_SLICE]
    assert read_trace(unit) == TRACE  # past the codec's own SEI


def test_the_picture_itself_is_untouched() -> None:
    plain = access_units(1)[0]
    traced = insert_trace(plain, TRACE)
    assert traced.replace(TRACE.to_nal(), b"") == plain


def test_zeros_do_not_look_like_start_codes() -> None:
    nal = FrameTrace(0, 0, False, 0, 0, 0, 0).to_nal()
    assert nal.count(b"\0\0\1") == 1
    assert nal.find(b"\0\0\0", 1) == -1
    assert read_trace(nal + b"\0\0\1\x41\x9a") == FrameTrace(0, 0, False, 0, 0, 0, 0)


def test_durations_saturate_and_counters_wrap() -> None:
    odd = FrameTrace(2**32 + 5, 2**16 + 6, False, -3, 2**40, 0, 0)
    assert FrameTrace.unpack(odd.pack()) == FrameTrace(5, 6, False, 0, 2**32 - 1, 0, 0)


def test_another_uuid_is_not_ours() -> None:
    assert FrameTrace.unpack(b"x" * 40) is None
    assert FrameTrace.unpack(b"") is None
    assert read_trace(access_units(1)[0]) is None
    assert read_trace(b"no start code at all") is None


def test_a_malformed_trace_is_named() -> None:
    with pytest.raises(TraceError, match="a frame trace has 24 bytes after its UUID, not 3"):
        FrameTrace.unpack(TRACE_UUID.bytes + b"abc")
    future = bytearray(TRACE.pack())
    future[16 + 7] = 9
    with pytest.raises(TraceError, match="frame trace version 9 is not known, only 1"):
        FrameTrace.unpack(bytes(future))


def test_an_access_unit_without_a_picture_is_refused() -> None:
    with pytest.raises(AccessUnitError, match="the access unit has no slice"):
        insert_trace(b"\0\0\0\1\x67\x42", TRACE)


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=40).map(bytes))
def test_emulation_prevention_is_undone(rbsp: bytes) -> None:
    escaped = escape(rbsp)
    assert unescape(escaped) == rbsp
    assert all(code not in escaped for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))


@given(st.binary(max_size=120))
def test_no_bytes_from_outside_break_the_reader(noise: bytes) -> None:
    try:
        read_trace(b"\0\0\1\x06" + noise)
        read_trace(noise)
    except TraceError:
        pass


def test_start_codes_of_both_lengths_are_found() -> None:
    stream = b"\0\0\0\1\x67aa\0\0\1\x68bb\0\0\0\1\x65cc"
    assert list(nal_units(stream)) == [(0, b"\x67aa"), (7, b"\x68bb"), (13, b"\x65cc")]
    assert [is_picture(unit) for _, unit in nal_units(stream)] == [False, False, True]
