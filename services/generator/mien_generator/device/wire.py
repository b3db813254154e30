"""The bytes between a worker and the device: requests, answers and avatars. Fixed forms; nothing is pickled. Pure.

A message is one byte for its kind, then its fields, little endian. Pictures are not in it: avatars come in memory whose
descriptor travels with the message, faces go through `slots.py`.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mien_generator.device.slots import Shape, anonymous_file
from mien_generator.face.contract import AvatarFace, RgbArray
from mien_generator.face.region import PasteRegion
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints


class WireError(ValueError):
    """These bytes are no message between a worker and the device."""


class Kind(IntEnum):
    """The first byte of a message. To the device: SLOTS to WITHDRAW. To the worker: BEGUN to REFUSED."""

    SLOTS = 1  # with a descriptor
    PREPARE = 2  # with a descriptor of the avatar
    RELEASE = 3
    ASK = 4
    WITHDRAW = 5
    BEGUN = 16
    MADE = 17
    FAILED = 18
    PREPARED = 19
    REFUSED = 20


@dataclass(frozen=True, slots=True)
class WireAsk:
    """See contract.Ask. avatar: the number of a prepared avatar. slot: where the device writes the face."""

    session: int
    ticket: int
    tier: int
    avatar: int
    slot: int
    deadline_s: float
    driving: Keypoints


# A ticket has eight bytes: a worker of a hundred sessions gives out more than four bytes hold in sixteen days.
_ASK = struct.Struct("<BIQBIId")
_PREPARE = struct.Struct("<BIBB")
_NUMBER = struct.Struct("<BI")
_MADE = struct.Struct("<BQI?HHdd")
_FAILED = struct.Struct("<BQ")
_REFUSED = struct.Struct("<BI?")


def kind_of(message: bytes) -> Kind:
    """The message's kind; raises WireError."""
    try:
        return Kind(message[0])
    except (IndexError, ValueError) as error:
        raise WireError("a message without a kind") from error


def pack_ask(ask: WireAsk) -> bytes:
    head = _ASK.pack(Kind.ASK, ask.session, ask.ticket, ask.tier, ask.avatar, ask.slot, ask.deadline_s)
    return head + np.ascontiguousarray(ask.driving.rows(), "<f4").tobytes()


def unpack_ask(message: bytes) -> WireAsk:
    """Raises WireError if the length is wrong."""
    if len(message) != _ASK.size + NUM_KEYPOINTS * 6 * 4:
        raise WireError(f"a request of {len(message)} bytes")
    _, session, ticket, tier, avatar, slot, deadline_s = _ASK.unpack_from(message)
    driving = Keypoints.from_rows(np.frombuffer(message, "<f4", offset=_ASK.size))
    return WireAsk(session, ticket, tier, avatar, slot, deadline_s, driving)


def pack_number(kind: Kind, number: int) -> bytes:
    """A message with one number: of an avatar (RELEASE, PREPARED) or a session (WITHDRAW)."""
    return _NUMBER.pack(kind, number)


def unpack_number(message: bytes) -> int:
    return int(_unpacked(_NUMBER, message)[1])


def pack_prepare(avatar: int, tier: int, ahead: bool) -> bytes:
    return _PREPARE.pack(Kind.PREPARE, avatar, tier, ahead)


def unpack_prepare(message: bytes) -> tuple[int, int, bool]:
    """(number of the avatar, tier, ahead)"""
    _, avatar, tier, ahead = _unpacked(_PREPARE, message)
    return int(avatar), int(tier), bool(ahead)


def pack_begun(tickets: list[int]) -> bytes:
    return struct.pack(f"<B{len(tickets)}Q", Kind.BEGUN, *tickets)


def unpack_begun(message: bytes) -> tuple[int, ...]:
    count, rest = divmod(len(message) - 1, 8)
    if rest:
        raise WireError("half a ticket")
    return struct.unpack_from(f"<{count}Q", message, 1)


def pack_made(ticket: int, slot: int, shape: Shape, started_s: float, done_s: float) -> bytes:
    return _MADE.pack(Kind.MADE, ticket, slot, shape.is_patch, shape.height, shape.width, started_s, done_s)


def unpack_made(message: bytes) -> tuple[int, int, Shape, float, float]:
    """(ticket, slot, shape, started_s, done_s)"""
    _, ticket, slot, is_patch, height, width, started_s, done_s = _unpacked(_MADE, message)
    return int(ticket), int(slot), Shape(bool(is_patch), int(height), int(width)), started_s, done_s


def pack_failed(ticket: int, error: str) -> bytes:
    return _FAILED.pack(Kind.FAILED, ticket) + error.encode(errors="replace")


def unpack_failed(message: bytes) -> tuple[int, str]:
    _, ticket = _unpacked(_FAILED, message[: _FAILED.size])
    return int(ticket), message[_FAILED.size :].decode(errors="replace")


def pack_refused(avatar: int, is_full: bool, error: str) -> bytes:
    """is_full: there is no room for the avatar; otherwise preparing it failed."""
    return _REFUSED.pack(Kind.REFUSED, avatar, is_full) + error.encode(errors="replace")


def unpack_refused(message: bytes) -> tuple[int, bool, str]:
    _, avatar, is_full = _unpacked(_REFUSED, message[: _REFUSED.size])
    return int(avatar), bool(is_full), message[_REFUSED.size :].decode(errors="replace")


def _unpacked(form: struct.Struct, message: bytes) -> tuple[float, ...]:
    if len(message) != form.size:
        raise WireError(f"a message of {len(message)} bytes instead of {form.size}")
    return form.unpack(message)


def avatar_memory(face: AvatarFace) -> int:
    """A descriptor of shared memory with an avatar's face. The caller closes it."""
    region = face.region
    head = json.dumps(
        {
            "crop": face.rgb.shape,
            "keypoints": face.keypoints.rows().tolist(),
            "region": None
            if region is None
            else [region.still.shape, region.x, region.y, region.size, region.left, region.top],
        }
    ).encode()
    parts = [len(head).to_bytes(4, "little"), head, face.rgb.tobytes()]
    if region is not None:
        parts.append(region.still.tobytes())
    data = b"".join(parts)
    descriptor = anonymous_file(len(data))
    with mmap.mmap(descriptor, len(data)) as memory:
        memory[:] = data
    return descriptor


def read_avatar(descriptor: int) -> AvatarFace:
    """The avatar's face in this memory, as a copy. Raises WireError."""
    try:
        with mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ) as memory:
            return _avatar_in(bytes(memory))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise WireError("this memory holds no avatar") from error


def _avatar_in(data: bytes) -> AvatarFace:
    end = 4 + int.from_bytes(data[:4], "little")
    head = json.loads(data[4:end])
    crop = _picture(data, end, head["crop"])
    region = None
    if head["region"] is not None:
        shape, x, y, size, left, top = head["region"]
        still = _picture(data, end + crop.size, shape)
        region = PasteRegion(still, int(x), int(y), int(size), int(left), int(top))
    return AvatarFace(crop, Keypoints.from_rows(head["keypoints"]), region)


def _picture(data: bytes, start: int, shape: Sequence[int]) -> RgbArray:
    height, width, _ = shape
    return np.frombuffer(data, np.uint8, height * width * 3, start).reshape(height, width, 3).copy()
