"""The synthetic mark: tells programs that the pictures of a video stream are made by a computer.

It is an SEI message "user data unregistered" (ITU-T H.264, D.1.7) in every IDR, so a program that begins to read at any
place meets it within one group of pictures, and a file that is cut keeps it:

| offset | bytes | field |
|---|---|---|
| 0 | 16 | UUID 6d69656e-7379-4e74-a865-7469632d7631 |
| 16 | 1 | version = 1 |
| 17 | 18 | "compositeSynthetic" in ASCII |

The text is a code of IPTC's NewsCodes for digital source types (cv.iptc.org/newscodes/digitalsourcetype): a composite
with synthetic parts. Here a face that motion data animates lies in a still picture. A later version may hold another
code of that list, so a reader takes every version: what counts is the UUID. Pure.
"""

from __future__ import annotations

from uuid import UUID

from mien_shared.media.user_data import UUID_BYTES, insert, payloads, to_nal

MARK_UUID = UUID("6d69656e-7379-4e74-a865-7469632d7631")
VERSION = 1
DIGITAL_SOURCE_TYPE = "compositeSynthetic"

#: The whole SEI NAL unit with its start code.
MARK_NAL = to_nal(MARK_UUID.bytes + bytes([VERSION]) + DIGITAL_SOURCE_TYPE.encode("ascii"))


def insert_mark(access_unit: bytes) -> bytes:
    """The access unit with the mark before its first slice. Raises AccessUnitError if there is no slice."""
    return insert(access_unit, MARK_NAL)


def has_mark(access_unit: bytes) -> bool:
    """Whether an Annex-B access unit carries the mark."""
    return any(map(is_mark, payloads(access_unit)))


def is_mark(payload: bytes) -> bool:
    """Whether an SEI payload is the mark, in the form that a decoder gives it (UUID first).

    PyAV: `bytes(side_data)` of each `VideoFrame.side_data` entry of type SEI_UNREGISTERED.
    """
    return payload[:UUID_BYTES] == MARK_UUID.bytes
