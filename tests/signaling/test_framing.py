from __future__ import annotations

import pytest

from mien_signaling.framing import MAX_DATAGRAM_BYTES, Deframer, FrameTooLong, framed

DATAGRAMS = [b"a", b"bc" * 600, b"d" * MAX_DATAGRAM_BYTES]
STREAM = b"".join(map(framed, DATAGRAMS))


def test_a_frame_is_a_length_in_network_order_and_the_datagram() -> None:
    assert framed(b"x" * 258) == b"\x01\x02" + b"x" * 258


@pytest.mark.parametrize("step", [1, 2, 3, 700, len(STREAM)])
def test_datagrams_come_out_whole_however_the_stream_is_cut(step: int) -> None:
    deframer = Deframer()
    found = [datagram for at in range(0, len(STREAM), step) for datagram in deframer.feed(STREAM[at : at + step])]
    assert found == DATAGRAMS


def test_an_empty_frame_is_left_out() -> None:
    assert Deframer().feed(framed(b"") + framed(b"a")) == [b"a"]


def test_a_frame_that_is_too_long_is_refused_by_its_length_alone() -> None:
    text = f"a frame of {MAX_DATAGRAM_BYTES + 1} bytes; at most {MAX_DATAGRAM_BYTES} are taken"
    with pytest.raises(FrameTooLong, match=text):
        Deframer().feed((MAX_DATAGRAM_BYTES + 1).to_bytes(2, "big"))
