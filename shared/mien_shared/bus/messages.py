"""What travels between the services, one class a message. Motion and frames are bytes; the rest is JSON."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()


class SessionRecord(_Message):
    """A session as the registry keeps it."""

    session_id: str
    avatar_id: str
    created_at_ms: int


class GeneratorStatus(_Message):
    """What a generator says of itself with every heartbeat."""

    generator_id: str
    capacity: int
    sessions: int
    backend: str
    draining: bool = False


class SessionStats(_Message):
    """A live session's own figures over the last seconds, as its generator sees them."""

    fps: float
    bitrate_bps: int
    uplink_bps: int
    motion_to_packet_ms_p50: float | None
    motion_to_packet_ms_p99: float | None
    backend: str
    tier: str
    idle: bool = Field(description="True while the uplink is stalled and a default motion plays")
    viewers: int | None = Field(None, description="Who watches, over all signaling services; added by the gateway")


class StartSession(_Message):
    """Gateway to generator: a slot of yours is reserved for this session; its lease is in your name."""

    kind: Literal["start"] = "start"
    session: SessionRecord
    traceparent: str | None = None


class StopSession(_Message):
    """Gateway to generator: the session has ended."""

    kind: Literal["stop"] = "stop"
    session_id: str


class KeyframeReason(StrEnum):
    """Who wanted an IDR."""

    JOIN = "join"
    PLI = "pli"
    GAP = "gap"
    REDIS = "redis"


class RequestKeyframe(_Message):
    """Signaling to generator: someone cannot decode before the next IDR."""

    kind: Literal["keyframe"] = "keyframe"
    session_id: str
    reason: KeyframeReason


class SetBitrate(_Message):
    """Signaling to generator: what the session's viewers can take."""

    kind: Literal["bitrate"] = "bitrate"
    session_id: str
    bitrate_bps: int = Field(gt=0)


Control = Annotated[StartSession | StopSession | RequestKeyframe | SetBitrate, Field(discriminator="kind")]
_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)


def parse_control(data: bytes) -> Control:
    """Read one control message; raises pydantic.ValidationError if it is none."""
    return _CONTROL.validate_json(data)


@dataclass(frozen=True, slots=True)
class InboundMotion:
    """One motion packet on its way from gateway to generator.

    packet: the 128 bytes as the device sent them, validated by the gateway.
    received_unix_us: when the gateway took it in, microseconds since 1970.
    """

    session_id: str
    packet: bytes
    received_unix_us: int


#: Before each motion of a batch: bytes of the session id, bytes of the packet, received_unix_us. Little-endian.
_MOTION_HEADER = struct.Struct("<BHQ")


class MotionBatchError(ValueError):
    """Bytes that are no batch of motion."""


def pack_motion(batch: Iterable[InboundMotion]) -> bytes:
    """Motion of several sessions as one value: Redis, its client and its reader pay for values, not for bytes."""
    parts: list[bytes] = []
    for motion in batch:
        session_id = motion.session_id.encode()
        parts += (_MOTION_HEADER.pack(len(session_id), len(motion.packet), motion.received_unix_us), session_id)
        parts.append(motion.packet)
    return b"".join(parts)


def unpack_motion(data: bytes) -> list[InboundMotion]:
    """The batch in its order; raises MotionBatchError."""
    batch, at = [], 0
    try:
        while at < len(data):
            id_bytes, packet_bytes, received_unix_us = _MOTION_HEADER.unpack_from(data, at)
            id_at = at + _MOTION_HEADER.size
            packet_at = id_at + id_bytes
            at = packet_at + packet_bytes
            batch.append(InboundMotion(data[id_at:packet_at].decode(), data[packet_at:at], received_unix_us))
    except (struct.error, UnicodeDecodeError) as error:
        raise MotionBatchError(f"a batch of motion is broken: {error}") from error
    if at > len(data):
        raise MotionBatchError(f"a batch of motion ends {at - len(data)} bytes early")
    return batch


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One access unit on its way from generator to signaling.

    run: which run of an encoder made it; another run starts on an IDR. index: counts up by one within a run, so a gap
    is seen. pts_90k: Unix time on the 90 kHz clock, so that it goes on when another generator takes over.
    data: Annex-B H.264, SPS and PPS before every IDR.
    """

    run: str
    index: int
    pts_90k: int
    is_idr: bool
    data: bytes

    def follows(self, previous: EncodedFrame) -> bool:
        """True if nothing is missing between the two."""
        return self.run == previous.run and self.index == previous.index + 1
