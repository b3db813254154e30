"""Which avatars a participant may see and use: the bundled ones, and the pictures that it uploaded itself.

The id of a participant's picture names its owner by a digest, so that a listing of the store tells whose it is. The
owner is the identity among all rooms of one API key: a person finds its pictures again in the next meeting.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from mien_gateway.bundled import is_bundled
from mien_shared.bus.room_messages import ParticipantRecord, RoomRecord

_OWNED = re.compile(r"p-([0-9a-f]{20})-[A-Za-z0-9_-]{16}")


def owner_of(room: RoomRecord, participant: ParticipantRecord) -> str:
    """The participant as an owner of pictures."""
    return hashlib.sha256(f"{room.owner}\n{participant.identity}".encode()).hexdigest()[:20]


def new_avatar_id(owner: str | None) -> str:
    """An id that nobody can guess. owner: None for an operator's avatar."""
    unguessable = secrets.token_urlsafe(12)
    return unguessable if owner is None else f"p-{owner}-{unguessable}"


def owner_in(avatar_id: str) -> str | None:
    """The owner that an avatar's id names, None if no participant uploaded it."""
    found = _OWNED.fullmatch(avatar_id)
    return None if found is None else found[1]


def may_use(owner: str, avatar_id: str) -> bool:
    """Whether a participant may list, see and delete this avatar; a bundled one cannot be deleted by anyone."""
    return is_bundled(avatar_id) or owner_in(avatar_id) == owner
