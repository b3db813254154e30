"""The synthetic mark: its bytes are fixed, and it stands beside other user data."""

from hypothesis import given
from hypothesis import strategies as st

from mien_shared.media.annexb import NalType, nal_type, nal_units
from mien_shared.media.frame_trace import FrameTrace, insert_trace, read_trace
from mien_shared.media.synthetic_mark import MARK_NAL, MARK_UUID, has_mark, insert_mark, is_mark
from mien_shared.media.user_data import insert, payloads, to_nal

IDR = b"\0\0\0\1\x67\x42\x40\x1f\0\0\0\1\x68\xce\0\0\0\1\x65\x88\x84"
TRACE = FrameTrace(1, 2, False, 3, 4, 5, 6)


def test_the_bytes_are_those_of_the_documentation() -> None:
    sei_of_35_bytes = "00000001" + "06" + "05" + "23"
    body = "6d69656e73794e74a8657469632d7631" + "01" + b"compositeSynthetic".hex()
    assert MARK_NAL.hex() == sei_of_35_bytes + body + "80"
    assert len(MARK_NAL) == 43


def test_it_stands_between_the_parameter_sets_and_the_picture() -> None:
    marked = insert_mark(IDR)
    kinds = [nal_type(unit) for _, unit in nal_units(marked)]
    assert kinds == [NalType.SPS, NalType.PPS, NalType.SEI, NalType.IDR_SLICE]
    assert marked.replace(MARK_NAL, b"") == IDR
    assert has_mark(marked)
    assert not has_mark(IDR)


def test_mark_and_trace_stand_side_by_side() -> None:
    both = insert_trace(insert_mark(IDR), TRACE)
    assert (has_mark(both), read_trace(both)) == (True, TRACE)
    assert has_mark(insert_mark(insert_trace(IDR, TRACE)))


def test_other_user_data_is_no_mark() -> None:
    assert not has_mark(insert_trace(IDR, TRACE))
    assert not is_mark(b"")
    assert not is_mark(MARK_UUID.bytes[:15])


def test_a_later_version_is_a_mark_too() -> None:
    later = insert(IDR, to_nal(MARK_UUID.bytes + b"\x02trainedAlgorithmicMedia"))
    assert has_mark(later)


def test_a_mark_behind_the_picture_does_not_count() -> None:
    assert not has_mark(IDR + MARK_NAL)


@given(st.binary(max_size=200))
def test_payloads_come_out_as_they_went_in(body: bytes) -> None:
    payload = MARK_UUID.bytes + body
    assert list(payloads(insert(IDR, to_nal(payload)))) == [payload]
