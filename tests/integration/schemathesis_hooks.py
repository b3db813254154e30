"""What schemathesis cannot know: bodies that are SDP, and ids of what there is."""

from __future__ import annotations

from typing import Any

import schemathesis

_THERE = {"session_id": "one", "avatar_id": "someone", "room_id": "room", "participant_id": "guest"}


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def sdp(_: Any, value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


@schemathesis.hook
def map_path_parameters(_: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other id is one that exists."""
    if path_parameters is None:
        return None
    return {name: _THERE.get(name, value) if len(str(value)) % 2 else value for name, value in path_parameters.items()}
