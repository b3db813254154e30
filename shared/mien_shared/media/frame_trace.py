"""The frame trace: the origin and the stage times of one frame, sent inside its access unit to every receiver.

It is an SEI message "user data unregistered" (ITU-T H.264, D.1.7): Mien's UUID, then 24 bytes, little-endian:

| offset | type | field |
|---|---|---|
| 0 | u32 | capture time of the motion, milliseconds of the sender's clock |
| 4 | u16 | the motion packet's sequence number |
| 6 | u8 | flags: bit 0 is set if the uplink stalled and this is default motion |
| 7 | u8 | version = 1 |
| 8 | u32 x 4 | microseconds of: waiting (from uplink to face, from face to composition), face, composition, encoding |

Decoders ignore it. Receivers that know it measure motion-to-receiver latency without a second channel. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from mien_shared.media.user_data import UUID_BYTES, insert, payloads, to_nal

TRACE_UUID = UUID("6d69656e-7472-4163-b1a5-0f3c5e8d2a71")
VERSION = 1

_BODY = struct.Struct("<IHBB4I")
_FLAG_STALLED = 1
_U32_MAX = 0xFFFF_FFFF


class TraceError(ValueError):
    """The message has Mien's UUID, but it is not a frame trace of version 1."""


@dataclass(frozen=True, slots=True)
class FrameTrace:
    """One frame's origin and the time that each stage took.

    capture_ms: 32 bits, wraps. sequence: 16 bits, wraps. Durations are in microseconds and saturate at 2^32 - 1.
    """

    capture_ms: int
    sequence: int
    is_stalled: bool
    uplink_wait_us: int
    face_us: int
    compose_us: int
    encode_us: int

    def pack(self) -> bytes:
        """The SEI message's payload: UUID and 24 bytes."""
        durations = (self.uplink_wait_us, self.face_us, self.compose_us, self.encode_us)
        return TRACE_UUID.bytes + _BODY.pack(
            self.capture_ms & _U32_MAX,
            self.sequence & 0xFFFF,
            _FLAG_STALLED if self.is_stalled else 0,
            VERSION,
            *(min(max(duration, 0), _U32_MAX) for duration in durations),
        )

    @classmethod
    def unpack(cls, payload: bytes) -> FrameTrace | None:
        """Read an SEI payload in the form that a decoder gives it (UUID first); None if it has another UUID.

        PyAV: `bytes(side_data)` of each `VideoFrame.side_data` entry of type SEI_UNREGISTERED. Raises TraceError.
        """
        if payload[:UUID_BYTES] != TRACE_UUID.bytes:
            return None
        body = payload[UUID_BYTES:]
        if len(body) != _BODY.size:
            raise TraceError(f"a frame trace has {_BODY.size} bytes after its UUID, not {len(body)}")
        capture_ms, sequence, flags, version, wait, face, compose, encode = _BODY.unpack(body)
        if version != VERSION:
            raise TraceError(f"frame trace version {version} is not known, only {VERSION}")
        return cls(capture_ms, sequence, bool(flags & _FLAG_STALLED), wait, face, compose, encode)

    def to_nal(self) -> bytes:
        """The whole SEI NAL unit with its start code."""
        return to_nal(self.pack())


def insert_trace(access_unit: bytes, trace: FrameTrace) -> bytes:
    """The access unit with the trace before its first slice. Raises AccessUnitError if there is no slice."""
    return insert(access_unit, trace.to_nal())


def read_trace(access_unit: bytes) -> FrameTrace | None:
    """The trace of an Annex-B access unit, None if it has none; raises TraceError for a broken trace."""
    return next((trace for trace in map(FrameTrace.unpack, payloads(access_unit)) if trace is not None), None)
