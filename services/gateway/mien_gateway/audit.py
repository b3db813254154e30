"""The audit log: who created or ended what. Each line is a constant text with fields, in the logger mien.audit.

A caller appears by the name of its principal, which does not reveal its key or token. A session appears by a digest of
its id, because the id is enough to watch it in an open deployment. A viewer, a room and a participant appear by digests
of their ids, because the ids are enough to end them there. The lines are written at every MIEN_LOG_LEVEL.
"""

from __future__ import annotations

import hashlib
import logging

from mien_shared.avatars import Consent
from mien_shared.bus.messages import EndReason
from mien_shared.bus.room_messages import RoomEnd
from mien_shared.http.principal import Principal

logger = logging.getLogger("mien.audit")
logger.setLevel(logging.INFO)


def avatar_created(by: Principal, avatar_id: str, consent: Consent | None) -> None:
    """The name of the person in the picture is in the avatar's record, not here: it goes when the avatar goes."""
    _write("avatar created", by, avatar=avatar_id, consent="unstated" if consent is None else str(consent.kind))


def avatar_deleted(by: Principal | None, avatar_id: str) -> None:
    """by: None if the gateway deleted it, because the avatar was unused for too long."""
    _write("avatar deleted", by, avatar=avatar_id)


def session_created(by: Principal, session_id: str, avatar_id: str) -> None:
    _write("session created", by, session=digest(session_id), avatar=avatar_id)


def session_ended(by: Principal | None, session_id: str, reason: EndReason) -> None:
    """by: None if a limit of the gateway ended it."""
    _write("session ended", by, session=digest(session_id), reason=str(reason))


def viewer_ended(by: Principal, session_id: str, viewer_id: str) -> None:
    _write("viewer ended", by, session=digest(session_id), viewer=digest(viewer_id))


def egress_ordered(by: Principal, session_id: str) -> None:
    _write("egress ordered", by, session=digest(session_id))


def egress_withdrawn(by: Principal, session_id: str) -> None:
    _write("egress withdrawn", by, session=digest(session_id))


def room_created(by: Principal, room_id: str) -> None:
    _write("room created", by, room=digest(room_id))


def room_locked(by: Principal, room_id: str, locked: bool) -> None:
    _write("room locked" if locked else "room unlocked", by, room=digest(room_id))


def room_ended(by: Principal | None, room_id: str, reason: RoomEnd) -> None:
    """by: None if a limit of the gateway ended it."""
    _write("room ended", by, room=digest(room_id), reason=str(reason))


def participant_created(by: Principal, room_id: str, participant_id: str) -> None:
    _write("participant created", by, room=digest(room_id), participant=digest(participant_id))


def participant_changed(by: Principal, room_id: str, participant_id: str, what: str) -> None:
    """what: which moderation it was: "admitted", "muted", "hand lowered" or "removed"."""
    _write(f"participant {what}", by, room=digest(room_id), participant=digest(participant_id))


def webhook_created(by: Principal, webhook_id: str) -> None:
    _write("webhook created", by, webhook=webhook_id)


def webhook_deleted(by: Principal, webhook_id: str) -> None:
    _write("webhook deleted", by, webhook=webhook_id)


def digest(secret_id: str) -> str:
    """What stands for a session or a viewer in the log: `printf %s ID | sha256sum | head -c 16`."""
    return hashlib.sha256(secret_id.encode()).hexdigest()[:16]


def _write(message: str, by: Principal | None, **fields: str) -> None:
    who = {"role": "gateway"} if by is None else {"role": str(by.role), "principal": by.name}
    logger.info(message, extra=who | fields)
