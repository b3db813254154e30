"""What the processes tell each other: every message round-trips, and nothing else is a message."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mien_generator.link import MAX_MESSAGE_BYTES
from mien_generator.measure import Measurement
from mien_generator.processes.messages import (
    DeviceHangs,
    DeviceStatus,
    Ended,
    Fork,
    Forked,
    Load,
    Machine,
    Message,
    MoveAway,
    Orders,
    Scrape,
    Scraped,
    ServeWorker,
    Stop,
    Unusable,
    UseDevice,
    WorkerStart,
    WorkerStatus,
    parse,
)

MACHINE = Machine(
    tiers=[("onnx-384", "onnx"), ("warp", "warp")],
    shares_cores=True,
    h264_encoder="libx264",
    speed=Measurement(tiers=[[(1, 0.004), (8, 0.02)]], warp_s=0.002, finish_s=0.005, noisy=False),
    fallback=None,
)
LOAD = Load(session_id="s", tier=1, wanted_fps=29.97, drawn_fps=0.0, since_s=1234.5)
STATUS = WorkerStatus(
    generator_id="g",
    session_ids=["s", "pinned"],
    loads=[LOAD],
    places=4,
    is_overloaded=False,
    has_device=True,
    fatal={},
    unready={"redis": "Redis does not answer"},
)
START = WorkerStart(machine=MACHINE, places=7, redis_url="redis://localhost/0")
MESSAGES: list[Message] = [
    MACHINE,
    MACHINE.model_copy(update={"fallback": ("weights", "no weights")}),
    Unusable(reason='no encoder "ä"\n'),
    DeviceStatus(load_factor=1.25),
    STATUS,
    DeviceHangs(),
    Orders(steps={"s": 1}, first_tier=0, places=9),
    Orders(steps={}, first_tier=0, places=1),
    UseDevice(),
    ServeWorker(),
    MoveAway(sessions=1),
    Stop(),
    Scrape(number=2**40),
    Scraped(number=0, text='m{label="\\\\"} 1.0\n'),
    Fork(role="device"),
    Fork(role="worker", start=START),
    Forked(pid=4242),
    Ended(pid=4242, status=-9),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_a_message_round_trips(message: Message) -> None:
    received = parse(message.to_bytes())
    assert received == message
    assert type(received) is type(message)


def test_every_message_is_tried_here() -> None:
    union, _ = get_args(Message)
    assert {type(message) for message in MESSAGES} == set(get_args(union))


def test_every_kind_names_one_message() -> None:
    kinds = [member.model_fields["kind"].default for member in get_args(get_args(Message)[0])]
    assert len(set(kinds)) == len(kinds)


@given(st.floats(allow_nan=False), st.floats(0, 1e9), st.text())
def test_numbers_and_texts_arrive_as_they_are(load_factor: float, since_s: float, session_id: str) -> None:
    status = STATUS.model_copy(
        update={"loads": [LOAD.model_copy(update={"since_s": since_s, "session_id": session_id})]}
    )
    assert parse(status.to_bytes()) == status


@pytest.mark.parametrize("load_factor", [0.5, 1e-300, 1e300])
def test_a_load_factor_arrives_as_it_is(load_factor: float) -> None:
    assert parse(DeviceStatus(load_factor=load_factor).to_bytes()) == DeviceStatus(load_factor=load_factor)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"stop"',
        b"{}",
        b"[" * 100_000,
        b'{"kind": "stop"',
        b'{"kind": "halt"}',
        b'{"kind": null}',
        b'{"kind": ["stop"]}',
        b'{"sessions": 1}',
        b'{"kind": "move_away"}',
        b'{"kind": "move_away", "sessions": "many"}',
        b'{"kind": "fork", "role": "host"}',
        b'{"kind": "fork", "role": "worker", "start": {"places": 1}}',
        b'{"kind": "orders", "steps": {"s": "up"}, "first_tier": 0, "places": 1}',
        b'{"kind": "device_status", "load_factor": null}',
    ],
    ids=lambda data: repr(data[:50]),
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse(data)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KINDS = [message.kind for message in MESSAGES]


@given(st.sampled_from(KINDS), st.dictionaries(st.text(), JSON, max_size=4))
def test_json_of_a_kind_is_its_message_or_refused(kind: str, fields: dict[str, Any]) -> None:
    try:
        message = parse(json.dumps({**fields, "kind": kind}).encode())
    except ValidationError:
        return
    assert isinstance(message, BaseModel)
    assert message.kind == kind


def test_a_worker_of_many_sessions_reports_in_one_message() -> None:
    loads = [LOAD.model_copy(update={"session_id": f"{number:032d}"}) for number in range(512)]
    status = STATUS.model_copy(update={"loads": loads, "session_ids": [load.session_id for load in loads]})
    assert status.sessions == 512
    assert len(status.to_bytes()) < MAX_MESSAGE_BYTES / 10
    assert parse(status.to_bytes()) == status
