"""The examples of docs/conference.md run, in their order, against a real gateway."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from integration.gateway.conftest import API_KEY
from websockets.asyncio.client import connect

from mien_client import MienClient, Room, RoomEvent
from mien_gateway.room_connection import CloseCode
from mien_gateway.room_talk import MAX_MESSAGE_BYTES
from mien_gateway.webhook_sender import new_secret, request_bytes, target_of
from mien_shared.bus.room_messages import EventType, LeaveReason, RoomEnd

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[3] / "docs/conference.md").read_text()


async def test_the_examples_run(start_gateway: Any, start_generator: Any) -> None:
    gateway = await start_gateway(public_url="http://127.0.0.1:9")
    await start_generator()
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 5
    (with_media,) = [example for example in examples if "room.watch" in example]
    examples.remove(with_media)  # tests/e2e/test_meeting.py runs it, with signaling
    names: dict[str, Any] = {
        "MienClient": MienClient,
        "Room": Room,
        "RoomEvent": RoomEvent,
        "connect": connect,
        "json": json,
        "base64": base64,
        "hashlib": hashlib,
        "hmac": hmac,
        "url": gateway.url,
        "api_key": API_KEY,
    }
    here = f"ws{gateway.url.removeprefix('http')}"
    names["here"] = lambda one: one.events_url.replace("ws://127.0.0.1:9", here)
    for example in examples:
        # The page's address of the gateway is a public one; here the test's own takes its place.
        local = re.sub(r"(ada|bob)\.events_url", r"here(\1)", example)
        running = eval(compile(local, "conference.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if running is not None:
            await running
    secret, body = new_secret(), b'{"type": "room_started"}'
    head = request_bytes(target_of("https://a.example/", False), secret, "evt_1", 17, body).partition(b"\r\n\r\n")[0]
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert names["is_genuine"](secret, headers, body)
    assert not names["is_genuine"](secret, headers, body + b" ")
    assert not names["is_genuine"](new_secret(), headers, body)


def test_the_page_names_every_event_reason_and_close_code() -> None:
    told = {kind for kind in EventType if kind is not EventType.CONNECTED}
    missing: list[str] = [kind for kind in told if f"`{kind}`" not in PAGE]
    missing += [str(int(code)) for code in CloseCode if str(int(code)) not in PAGE]
    missing += [reason for reason in (*RoomEnd, *LeaveReason) if reason not in PAGE and reason != "room-ended"]
    assert missing == []
    assert 2000 * len(json.dumps("𝕏")) - 2000 * 2 < MAX_MESSAGE_BYTES, "the text that the page promises fits"
