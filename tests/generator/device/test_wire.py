"""The bytes between a worker and the device: every message round-trips, and no other bytes do harm."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.device import wire
from mien_generator.device.slots import Shape, anonymous_file
from mien_generator.device.wire import Kind, WireAsk, WireError
from mien_generator.face.contract import AvatarFace
from mien_generator.face.region import PasteRegion
from mien_generator.specimen import CROP, draw_speaker, face_of, source_keypoints
from mien_shared.keypoints import Keypoints

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
SECONDS = st.floats(allow_nan=False)
KEYPOINTS = st.integers(0, 1000).map(lambda seed: Keypoints.from_rows(np.random.default_rng(seed).normal(size=60)))

UNPACK: list[Callable[[bytes], Any]] = [
    wire.kind_of,
    wire.unpack_ask,
    wire.unpack_number,
    wire.unpack_prepare,
    wire.unpack_begun,
    wire.unpack_made,
    wire.unpack_failed,
    wire.unpack_refused,
]


@given(U32, U64, U8, U32, U32, SECONDS, KEYPOINTS)
def test_a_request_round_trips(
    session: int, ticket: int, tier: int, avatar: int, slot: int, deadline_s: float, driving: Keypoints
) -> None:
    ask = WireAsk(session, ticket, tier, avatar, slot, deadline_s, driving)
    message = wire.pack_ask(ask)
    assert wire.kind_of(message) is Kind.ASK
    assert wire.unpack_ask(message) == ask


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.WITHDRAW, Kind.PREPARED])
@given(number=U32)
def test_a_number_round_trips(kind: Kind, number: int) -> None:
    message = wire.pack_number(kind, number)
    assert wire.kind_of(message) is kind
    assert wire.unpack_number(message) == number


@given(U32, U8, st.booleans())
def test_a_preparation_round_trips(avatar: int, tier: int, ahead: bool) -> None:
    message = wire.pack_prepare(avatar, tier, ahead)
    assert wire.kind_of(message) is Kind.PREPARE
    assert wire.unpack_prepare(message) == (avatar, tier, ahead)


@given(st.lists(U64, max_size=100))
def test_the_tickets_of_a_batch_round_trip(tickets: list[int]) -> None:
    message = wire.pack_begun(tickets)
    assert wire.kind_of(message) is Kind.BEGUN
    assert wire.unpack_begun(message) == tuple(tickets)


@given(U64, U32, st.builds(Shape, st.booleans(), U16, U16), SECONDS, SECONDS)
def test_a_face_round_trips(ticket: int, slot: int, shape: Shape, started_s: float, done_s: float) -> None:
    message = wire.pack_made(ticket, slot, shape, started_s, done_s)
    assert wire.kind_of(message) is Kind.MADE
    assert wire.unpack_made(message) == (ticket, slot, shape, started_s, done_s)


@given(U64, st.text())
def test_a_failure_round_trips(ticket: int, error: str) -> None:
    message = wire.pack_failed(ticket, error)
    assert wire.kind_of(message) is Kind.FAILED
    assert wire.unpack_failed(message) == (ticket, error)


@given(U32, st.booleans(), st.text())
def test_a_refusal_round_trips(avatar: int, is_full: bool, error: str) -> None:
    message = wire.pack_refused(avatar, is_full, error)
    assert wire.kind_of(message) is Kind.REFUSED
    assert wire.unpack_refused(message) == (avatar, is_full, error)


def test_an_error_whose_text_is_no_unicode_can_be_told() -> None:
    """A file's name in an error message may hold half a surrogate pair."""
    assert wire.unpack_failed(wire.pack_failed(1, "no file \udcff"))[1].startswith("no file ")
    assert wire.unpack_refused(wire.pack_refused(1, False, "no file \udcff"))[2].startswith("no file ")


@pytest.mark.parametrize("unpack", UNPACK)
@given(message=st.binary(max_size=400))
def test_other_bytes_are_a_wire_error_or_a_message(unpack: Callable[[bytes], Any], message: bytes) -> None:
    try:
        unpack(message)
    except WireError:
        pass


ASK = WireAsk(1, 2, 0, 3, 4, 5.0, Keypoints.at_rest())


@pytest.mark.parametrize(
    ("unpack", "message"),
    [
        (wire.unpack_ask, wire.pack_ask(ASK)),
        (wire.unpack_number, wire.pack_number(Kind.WITHDRAW, 7)),
        (wire.unpack_prepare, wire.pack_prepare(1, 0, True)),
        (wire.unpack_begun, wire.pack_begun([1])),
        (wire.unpack_made, wire.pack_made(1, 2, Shape(False, 3, 4), 0.0, 1.0)),
        (wire.unpack_failed, wire.pack_failed(1, "")),
        (wire.unpack_refused, wire.pack_refused(1, True, "")),
    ],
)
def test_half_a_message_is_a_wire_error(unpack: Callable[[bytes], Any], message: bytes) -> None:
    for length in range(len(message)):
        if unpack is not wire.unpack_begun or length != 1:  # which are the tickets of an empty batch
            with pytest.raises(WireError):
                unpack(message[:length])


@pytest.mark.parametrize("message", [b"", b"\x00", b"\x06", b"\x15", b"\xff"])
def test_a_message_of_no_kind_is_a_wire_error(message: bytes) -> None:
    with pytest.raises(WireError, match=r"^a message without a kind$"):
        wire.kind_of(message)


# Avatars


@contextmanager
def memory_of(content: bytes) -> Iterator[int]:
    descriptor = anonymous_file(len(content))
    try:
        os.pwrite(descriptor, content, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def avatar_of(region: bool) -> AvatarFace:
    still = draw_speaker()
    face = face_of(still)
    return AvatarFace(face.rgb, face.keypoints, PasteRegion.of(still, CROP) if region else None)


@pytest.mark.parametrize("region", [False, True])
def test_an_avatar_round_trips(region: bool) -> None:
    sent = avatar_of(region)
    descriptor = wire.avatar_memory(sent)
    try:
        received = wire.read_avatar(descriptor)
    finally:
        os.close(descriptor)
    np.testing.assert_array_equal(received.rgb, sent.rgb)
    assert received.rgb.flags.writeable, "it is a copy, which outlives the memory"
    assert received.keypoints == sent.keypoints
    if sent.region is None:
        assert received.region is None
        return
    assert received.region is not None
    np.testing.assert_array_equal(received.region.still, sent.region.still)
    for name in ("x", "y", "size", "left", "top", "shape", "crop"):
        assert getattr(received.region, name) == getattr(sent.region, name)


def test_a_crop_that_is_a_part_of_a_picture_round_trips() -> None:
    still = draw_speaker()
    crop = still[10:110:2, 30:80]
    descriptor = wire.avatar_memory(AvatarFace(crop, source_keypoints()))
    try:
        np.testing.assert_array_equal(wire.read_avatar(descriptor).rgb, crop)
    finally:
        os.close(descriptor)


@given(st.binary(max_size=300))
def test_memory_of_other_bytes_holds_no_avatar(content: bytes) -> None:
    with memory_of(content) as descriptor, pytest.raises(WireError, match=r"^this memory holds no avatar$"):
        wire.read_avatar(descriptor)


ROWS = Keypoints.at_rest().rows().tolist()


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"crop"',
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS}).encode(),
        json.dumps({"crop": [2, 2, 3], "region": None}).encode(),
        json.dumps({"keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": [9, 9, 3], "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": [-2, -2, 3], "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": [], "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": [12], "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": None, "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": "abc", "keypoints": ROWS, "region": None}).encode(),
        json.dumps({"crop": [2.0, 2.0, 3.0], "keypoints": ROWS, "region": None}).encode(),
        b'{"crop": [1e999, 2, 3], "keypoints": [], "region": null}',
        json.dumps({"crop": [2, 2, 3], "keypoints": [[0] * 6], "region": None}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": [10**400] * 60, "region": None}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": {}, "region": None}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS, "region": 5}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS, "region": []}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS, "region": [[2, 2, 3], 0]}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS, "region": [[9, 9, 3], 0, 0, 1, 0, 0]}).encode(),
        json.dumps({"crop": [2, 2, 3], "keypoints": ROWS, "region": [[2, 2, 3], "left", 0, 1, 0, 0]}).encode(),
    ],
    ids=lambda head: str(head[:60]),
)
def test_a_damaged_head_is_a_wire_error(head: bytes) -> None:
    content = struct.pack("<I", len(head)) + head + bytes(24)
    with memory_of(content) as descriptor, pytest.raises(WireError, match=r"^this memory holds no avatar$"):
        wire.read_avatar(descriptor)


def test_what_is_no_memory_holds_no_avatar() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(WireError, match=r"^this memory holds no avatar$"):
            wire.read_avatar(reading)
    finally:
        os.close(reading)
        os.close(writing)
