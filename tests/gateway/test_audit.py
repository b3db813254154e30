"""The audit log says who did what, at every level, and holds no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from mien_gateway import audit
from mien_gateway.api_keys import ApiKeys
from mien_shared.avatars import Consent, ConsentKind
from mien_shared.bus.messages import EndReason
from mien_shared.bus.room_messages import RoomEnd
from mien_shared.http.principal import Principal
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.logs import JsonFormatter

KEY = "an operator's key of thirty-two bytes or more"
SESSION_ID = "a-session-that-nobody-else-knows"
OWNER = ApiKeys.of([KEY]).owner(KEY)
assert OWNER is not None
OPERATOR = Principal.operator(OWNER)
TOKENS = TokenIssuer("a secret of thirty-two bytes or more")
TOKEN = TOKENS.issue(SESSION_ID, SPEAKER_GRANTS)
SPEAKER = TOKENS.read(TOKEN)
SESSION = audit.digest(SESSION_ID)
VIEWER_ID = "a viewer's unguessable id"
GRANTED = Consent(kind=ConsentKind.GRANTED, name="A Person", said_by="operator key", said_at_ms=1)


@pytest.mark.parametrize(
    ("write", "message", "fields"),
    [
        (
            lambda: audit.avatar_created(OPERATOR, "a1", None),
            "avatar created",
            {"role": "operator", "principal": OWNER, "avatar": "a1", "consent": "unstated"},
        ),
        (
            lambda: audit.avatar_created(OPERATOR, "a1", GRANTED),
            "avatar created",
            {"role": "operator", "principal": OWNER, "avatar": "a1", "consent": "granted"},
        ),
        (
            lambda: audit.avatar_deleted(OPERATOR, "a1"),
            "avatar deleted",
            {"role": "operator", "principal": OWNER, "avatar": "a1"},
        ),
        (lambda: audit.avatar_deleted(None, "a1"), "avatar deleted", {"role": "gateway", "avatar": "a1"}),
        (
            lambda: audit.session_created(OPERATOR, SESSION_ID, "a1"),
            "session created",
            {"role": "operator", "principal": OWNER, "session": SESSION, "avatar": "a1"},
        ),
        (
            lambda: audit.session_ended(SPEAKER, SESSION_ID, EndReason.SPEAKER),
            "session ended",
            {"role": "bearer", "principal": SPEAKER.name, "session": SESSION, "reason": "speaker"},
        ),
        (
            lambda: audit.session_ended(None, SESSION_ID, EndReason.DURATION),
            "session ended",
            {"role": "gateway", "session": SESSION, "reason": "duration"},
        ),
        (
            lambda: audit.room_created(OPERATOR, SESSION_ID),
            "room created",
            {"role": "operator", "principal": OWNER, "room": SESSION},
        ),
        (
            lambda: audit.room_locked(OPERATOR, SESSION_ID, True),
            "room locked",
            {"role": "operator", "principal": OWNER, "room": SESSION},
        ),
        (
            lambda: audit.room_locked(OPERATOR, SESSION_ID, False),
            "room unlocked",
            {"role": "operator", "principal": OWNER, "room": SESSION},
        ),
        (
            lambda: audit.room_ended(None, SESSION_ID, RoomEnd.EMPTY),
            "room ended",
            {"role": "gateway", "room": SESSION, "reason": "empty"},
        ),
        (
            lambda: audit.participant_created(OPERATOR, SESSION_ID, VIEWER_ID),
            "participant created",
            {"role": "operator", "principal": OWNER, "room": SESSION, "participant": audit.digest(VIEWER_ID)},
        ),
        (
            lambda: audit.participant_changed(OPERATOR, SESSION_ID, VIEWER_ID, "removed"),
            "participant removed",
            {"role": "operator", "principal": OWNER, "room": SESSION, "participant": audit.digest(VIEWER_ID)},
        ),
        (
            lambda: audit.webhook_created(OPERATOR, "w1"),
            "webhook created",
            {"role": "operator", "principal": OWNER, "webhook": "w1"},
        ),
        (
            lambda: audit.webhook_deleted(OPERATOR, "w1"),
            "webhook deleted",
            {"role": "operator", "principal": OWNER, "webhook": "w1"},
        ),
        (
            lambda: audit.viewer_ended(OPERATOR, SESSION_ID, VIEWER_ID),
            "viewer ended",
            {"role": "operator", "principal": OWNER, "session": SESSION, "viewer": audit.digest(VIEWER_ID)},
        ),
    ],
)
def test_who_did_what(
    write: Callable[[], None], message: str, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    write()
    (record,) = caplog.records
    line = JsonFormatter("gateway").format(record)
    entry = json.loads(line)
    assert (entry["logger"], entry["level"], entry["message"]) == ("mien.audit", "INFO", message)
    assert {name: entry[name] for name in entry if name not in {"time", "level", "service", "logger", "message"}} == (
        fields
    )
    for secret in (KEY, TOKEN, SESSION_ID, VIEWER_ID):
        assert secret not in line


def test_a_higher_log_level_leaves_the_audit_log_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel("ERROR")
    try:
        audit.avatar_created(OPERATOR, "a1", None)
    finally:
        root.setLevel(before)
    assert [record.message for record in caplog.records] == ["avatar created"]
