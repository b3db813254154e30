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

from mien_shared.media.annexb import START_CODE, NalType, escape, is_picture, nal_type, nal_units, unescape

TRACE_UUID = UUID("6d69656e-7472-4163-b1a5-0f3c5e8d2a71")
VERSION = 1

_BODY = struct.Struct("<IHBB4I")
_FLAG_STALLED = 1
_USER_DATA_UNREGISTERED = 5
_U32_MAX = 0xFFFF_FFFF


class TraceError(ValueError):
    """The message has Mien's UUID, but it is not a frame trace of version 1."""


class AccessUnitError(ValueError):
    """The bytes are not an Annex-B access unit with a picture."""


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
        if payload[:16] != TRACE_UUID.bytes:
            return None
        body = payload[16:]
        if len(body) != _BODY.size:
            raise TraceError(f"a frame trace has {_BODY.size} bytes after its UUID, not {len(body)}")
        capture_ms, sequence, flags, version, wait, face, compose, encode = _BODY.unpack(body)
        if version != VERSION:
            raise TraceError(f"frame trace version {version} is not known, only {VERSION}")
        return cls(capture_ms, sequence, bool(flags & _FLAG_STALLED), wait, face, compose, encode)

    def to_nal(self) -> bytes:
        """The whole SEI NAL unit with its start code."""
        payload = self.pack()
        rbsp = bytes([_USER_DATA_UNREGISTERED, len(payload)]) + payload + b"\x80"
        return START_CODE + bytes([NalType.SEI]) + escape(rbsp)


def insert_trace(access_unit: bytes, trace: FrameTrace) -> bytes:
    """The access unit with the trace before its first slice, after SPS and PPS (7.4.1.2.3 requires SEI there).

    Raises AccessUnitError if there is no slice.
    """
    for offset, unit in nal_units(access_unit):
        if is_picture(unit):
            return b"".join((access_unit[:offset], trace.to_nal(), access_unit[offset:]))
    raise AccessUnitError("the access unit has no slice")


def read_trace(access_unit: bytes) -> FrameTrace | None:
    """The trace of an Annex-B access unit, None if it has none; raises TraceError for a broken trace."""
    for _, unit in nal_units(access_unit):
        if is_picture(unit):
            return None
        if nal_type(unit) == NalType.SEI:
            for payload in _user_data(unescape(unit[1:])):
                trace = FrameTrace.unpack(payload)
                if trace is not None:
                    return trace
    return None


def _user_data(rbsp: bytes) -> list[bytes]:
    """The user-data payloads of an SEI NAL unit.

    Type and size are each the sum of any 0xFF bytes and one last byte (7.3.2.3.1).
    """
    found: list[bytes] = []
    at = 0
    while at + 2 <= len(rbsp) and rbsp[at] != 0x80:
        numbers = []
        for _ in range(2):
            value = 0
            while at < len(rbsp) and rbsp[at] == 0xFF:
                value, at = value + 255, at + 1
            if at == len(rbsp):
                return found
            numbers.append(value + rbsp[at])
            at += 1
        kind, size = numbers
        if kind == _USER_DATA_UNREGISTERED:
            found.append(rbsp[at : at + size])
        at += size
    return found
