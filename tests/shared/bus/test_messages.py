"""One round trip for each message between services."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mien_shared.bus.messages import (
    Control,
    EncodedFrame,
    GeneratorStatus,
    InboundMotion,
    KeyframeReason,
    MotionBatchError,
    RequestKeyframe,
    SessionRecord,
    SessionStats,
    SetBitrate,
    StartSession,
    StopSession,
    pack_motion,
    parse_control,
    unpack_motion,
)

SESSION = SessionRecord(session_id="s1", avatar_id="mien", created_at_ms=1_700_000_000_000)


@pytest.mark.parametrize(
    "message",
    [
        StartSession(session=SESSION),
        StopSession(session_id="s1"),
        RequestKeyframe(session_id="s1", reason=KeyframeReason.PLI),
        SetBitrate(session_id="s1", bitrate_bps=800_000),
    ],
    ids=lambda message: message.kind,
)
def test_control_round_trip(message: Control) -> None:
    assert parse_control(message.to_bytes()) == message


def test_records_round_trip() -> None:
    assert SessionRecord.model_validate_json(SESSION.to_bytes()) == SESSION
    status = GeneratorStatus(generator_id="g", capacity=8, sessions=3, backend="warp", draining=True)
    assert GeneratorStatus.model_validate_json(status.to_bytes()) == status
    stats = SessionStats(
        fps=30.0,
        bitrate_bps=1_000_000,
        uplink_bps=30_720,
        motion_to_packet_ms_p50=None,
        motion_to_packet_ms_p99=12.5,
        backend="warp",
        tier="warp-384",
        idle=False,
    )
    assert SessionStats.model_validate_json(stats.to_bytes()) == stats


def test_a_field_of_a_newer_version_is_ignored() -> None:
    data = SESSION.to_bytes()[:-1] + b', "room": "lobby"}'
    assert SessionRecord.model_validate_json(data) == SESSION


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"kind": "dance"}', b'{"kind": "bitrate", "session_id": "s", "bitrate_bps": 0}', b"\xff\xfe"],
)
def test_what_is_no_control_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse_control(data)


@pytest.mark.parametrize(
    ("run", "index", "follows"), [("a", 8, True), ("a", 9, False), ("a", 7, False), ("b", 8, False), ("b", 0, False)]
)
def test_a_frame_follows_only_its_own_predecessor(run: str, index: int, follows: bool) -> None:
    previous = EncodedFrame("a", 7, 0, False, b"")
    assert EncodedFrame(run, index, 3000, False, b"").follows(previous) is follows


MOTIONS = [
    InboundMotion("one", b"1" * 128, 1_700_000_000_000_000),
    InboundMotion("größer", b"", 0),
    InboundMotion("three", b"3", 2**64 - 1),
]


@pytest.mark.parametrize("count", range(len(MOTIONS) + 1))
def test_a_batch_of_motion_round_trip(count: int) -> None:
    assert unpack_motion(pack_motion(MOTIONS[:count])) == MOTIONS[:count]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pack_motion(MOTIONS[:1])[:-1], "the batch of motion is 1 bytes too short"),
        (pack_motion(MOTIONS[:1]) + b"\x03", "the batch of motion cannot be read: unpack_from requires"),
        (pack_motion(MOTIONS[:1]).replace(b"one", b"o\xffe"), "the batch of motion cannot be read: 'utf-8' codec"),
    ],
    ids=["cut short", "something after it", "an id that is no text"],
)
def test_a_broken_batch_of_motion_is_named(data: bytes, says: str) -> None:
    with pytest.raises(MotionBatchError, match=says):
        unpack_motion(data)
