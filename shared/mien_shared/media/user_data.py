"""User data in a coded picture: SEI messages "user data unregistered" (ITU-T H.264, 7.3.2.3.1 and D.1.7).

Such a message is a UUID and bytes of the UUID's owner. Decoders ignore those that they do not know. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from mien_shared.media.annexb import START_CODE, NalType, escape, is_picture, nal_type, nal_units, unescape

UUID_BYTES = 16
_USER_DATA_UNREGISTERED = 5
#: A longer payload would need more than one byte for its size.
_MAX_PAYLOAD_BYTES = 254


class AccessUnitError(ValueError):
    """The bytes are not an Annex-B access unit with a picture."""


def to_nal(payload: bytes) -> bytes:
    """The whole SEI NAL unit of a payload (UUID first, at most 254 bytes), with its start code."""
    assert UUID_BYTES <= len(payload) <= _MAX_PAYLOAD_BYTES
    rbsp = bytes([_USER_DATA_UNREGISTERED, len(payload)]) + payload + b"\x80"
    return START_CODE + bytes([NalType.SEI]) + escape(rbsp)


def insert(access_unit: bytes, nal: bytes) -> bytes:
    """The access unit with a NAL unit before its first slice, after SPS and PPS (7.4.1.2.3 requires SEI there).

    Raises AccessUnitError if there is no slice.
    """
    for offset, unit in nal_units(access_unit):
        if is_picture(unit):
            return b"".join((access_unit[:offset], nal, access_unit[offset:]))
    raise AccessUnitError("the access unit has no slice")


def payloads(access_unit: bytes) -> Iterator[bytes]:
    """The payloads, UUID first, of all messages that stand before the first slice of an Annex-B access unit."""
    for _, unit in nal_units(access_unit):
        if is_picture(unit):
            return
        if nal_type(unit) == NalType.SEI:
            yield from _user_data(unescape(unit[1:]))


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
