"""The messages between the services, one class for each. Motion and frames are bytes; the others are JSON."""

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
    """A session as the registry stores it.

    seen_ms: when the registry was last known to hold it, by Redis' clock; None in a record that was not read or written
    there by itself. It is not stored. room_id and participant_id: whose avatar it is, None without a room.
    """

    session_id: str
    avatar_id: str
    created_at_ms: int
    seen_ms: int | None = Field(None, exclude=True)
    room_id: str | None = None
    participant_id: str | None = None


class GeneratorStatus(_Message):
    """A generator's state, sent with every heartbeat."""

    generator_id: str
    capacity: int
    sessions: int
    backend: str
    draining: bool = False


class SessionStats(_Message):
    """Statistics of a live session over the last seconds, measured by its generator."""

    fps: float
    bitrate_bps: int
    uplink_bps: int
    motion_to_packet_ms_p50: float | None
    motion_to_packet_ms_p99: float | None
    backend: str
    tier: str
    idle: bool = Field(description="True while the uplink is stalled and a default motion plays")
    viewers: int | None = Field(None, description="Viewers on all signaling services; added by the gateway")


class ViewerState(_Message):
    """A viewer of a session, as its signaling service knows it. It says nothing of the person, device or address."""

    viewer_id: str = Field(description="The last part of the viewer's WHEP session URL")
    state: Literal["connecting", "connected"]
    joined_at_ms: int = Field(description="Unix time at which its offer arrived")
    sent_bps: int = Field(description="Rate at which the session's video is sent; 0 while the viewer is connecting")
    target_bps: int = Field(description="Rate that the viewer can receive, by its reports")
    loss_ratio: float | None = Field(None, description="Share of packets lost, 0 to 1, in its newest report")
    rtt_ms: float | None = Field(None, description="Round-trip time by its newest report")


class StartSession(_Message):
    """To a generator: start this session. Its slot is reserved, and its lease names the receiving generator.

    A gateway sends it for a new session, a draining generator for a session that it hands over.
    """

    kind: Literal["start"] = "start"
    session: SessionRecord
    traceparent: str | None = None


class StopSession(_Message):
    """Gateway to generator: the session has ended."""

    kind: Literal["stop"] = "stop"
    session_id: str


class EndReason(StrEnum):
    """Why a session has ended; `text` completes the sentence "the session has ended: ..."."""

    text: str

    def __new__(cls, value: str, text: str) -> EndReason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member

    SPEAKER = "speaker", "its speaker ended it"
    OPERATOR = "operator", "an operator ended it"
    NO_SPEAKER = "no-speaker", "it had no speaker for too long"
    DURATION = "duration", "it reached the longest duration that this deployment allows"
    AVATAR_DELETED = "avatar-deleted", "its avatar was deleted"
    FAILED = "failed", "its face could not be generated"
    LEFT = "left", "its participant has left the room"
    REPLACED = "replaced", "its participant has another avatar now"

    @classmethod
    def of(cls, value: bytes | str | None) -> EndReason | None:
        """The reason that Redis holds, None for none and for a value of another version."""
        found = value.decode() if isinstance(value, bytes) else value
        return next((reason for reason in cls if reason == found), None)

    @classmethod
    def sentence(cls, value: bytes | str | None) -> str:
        """What a participant reads, for a value from Redis."""
        reason = cls.of(value)
        return "the session has ended" if reason is None else f"the session has ended: {reason.text}"


class KeyframeReason(StrEnum):
    """Why an IDR is requested."""

    JOIN = "join"
    PLI = "pli"
    GAP = "gap"
    REDIS = "redis"


class RequestKeyframe(_Message):
    """Signaling to generator: a viewer cannot decode before the next IDR."""

    kind: Literal["keyframe"] = "keyframe"
    session_id: str
    reason: KeyframeReason


class SetBitrate(_Message):
    """Signaling to generator: the bitrate that the session's viewers can receive."""

    kind: Literal["bitrate"] = "bitrate"
    session_id: str
    bitrate_bps: int = Field(gt=0)


Control = Annotated[StartSession | StopSession | RequestKeyframe | SetBitrate, Field(discriminator="kind")]
_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)


def parse_control(data: bytes) -> Control:
    """Read one control message; raises pydantic.ValidationError if the bytes are not one."""
    return _CONTROL.validate_json(data)


@dataclass(frozen=True, slots=True)
class InboundMotion:
    """One motion packet on its way from gateway to generator.

    packet: the 128 bytes as the device sent them, validated by the gateway.
    received_unix_us: when the gateway received it, microseconds since 1970.
    """

    session_id: str
    packet: bytes
    received_unix_us: int


#: Header of each motion in a batch: length of the session id, length of the packet (in bytes), received_unix_us.
#: Little-endian.
_MOTION_HEADER = struct.Struct("<BHQ")


class MotionBatchError(ValueError):
    """The bytes are not a batch of motion."""


def pack_motion(batch: Iterable[InboundMotion]) -> bytes:
    """Motion of several sessions as one value: Redis, its client and its reader take time per value, not per byte."""
    parts: list[bytes] = []
    for motion in batch:
        session_id = motion.session_id.encode()
        parts += (_MOTION_HEADER.pack(len(session_id), len(motion.packet), motion.received_unix_us), session_id)
        parts.append(motion.packet)
    return b"".join(parts)


def unpack_motion(data: bytes) -> list[InboundMotion]:
    """The motions of a batch in their order; raises MotionBatchError."""
    batch, at = [], 0
    try:
        while at < len(data):
            id_bytes, packet_bytes, received_unix_us = _MOTION_HEADER.unpack_from(data, at)
            id_at = at + _MOTION_HEADER.size
            packet_at = id_at + id_bytes
            at = packet_at + packet_bytes
            batch.append(InboundMotion(data[id_at:packet_at].decode(), data[packet_at:at], received_unix_us))
    except (struct.error, UnicodeDecodeError) as error:
        raise MotionBatchError(f"the batch of motion cannot be read: {error}") from error
    if at > len(data):
        raise MotionBatchError(f"the batch of motion is {at - len(data)} bytes too short")
    return batch


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One access unit on its way from generator to signaling.

    run: the encoder run that made it; every run starts with an IDR. index: rises by one within a run, so that a gap is
    detected. pts_90k: Unix time on the 90 kHz clock, so that it continues when another generator takes over.
    data: Annex-B H.264 with SPS and PPS before every IDR.
    """

    run: str
    index: int
    pts_90k: int
    is_idr: bool
    data: bytes

    def follows(self, previous: EncodedFrame) -> bool:
        """True if no frame is missing between the two."""
        return self.run == previous.run and self.index == previous.index + 1
