"""Which limit a session has reached."""

from __future__ import annotations

import pytest

from mien_gateway.session_limits import Limits, overdue
from mien_shared.bus.messages import EndReason, SessionRecord

SESSION = SessionRecord(session_id="s", avatar_id="a", created_at_ms=1_000_000)  # created at 1000 s
LIMITS = Limits(no_speaker_s=120, max_session_s=3600)


@pytest.mark.parametrize(
    ("speaker_s", "now_s", "limits", "reason"),
    [
        (1000, 1120, LIMITS, None),
        (1000, 1121, LIMITS, EndReason.NO_SPEAKER),
        (1100, 1121, LIMITS, None),
        (4600, 4600, LIMITS, None),
        (4601, 4601, LIMITS, EndReason.DURATION),
        (1000, 4601, LIMITS, EndReason.DURATION),
        (1000, 10**9, Limits(no_speaker_s=0, max_session_s=0), None),
        (1000, 10**9, Limits(no_speaker_s=0, max_session_s=3600), EndReason.DURATION),
        (1000, 10**9, Limits(no_speaker_s=120, max_session_s=0), EndReason.NO_SPEAKER),
        (2000, 1000, LIMITS, None),  # the clock of another gateway is ahead
    ],
)
def test_which_limit_is_reached(speaker_s: float, now_s: float, limits: Limits, reason: EndReason | None) -> None:
    assert overdue(SESSION, now_s - speaker_s, now_s, limits) is reason


def test_redis_keeps_a_speaker_s_time_beyond_the_limit() -> None:
    assert LIMITS.speaker_ttl_s > LIMITS.no_speaker_s


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_reason_is_a_sentence_that_fits_a_close_frame(reason: EndReason) -> None:
    text = EndReason.sentence(str(reason).encode())
    assert text == f"the session has ended: {reason.text}"
    assert len(text.encode()) <= 123  # RFC 6455, section 5.5: 125 bytes with the code


@pytest.mark.parametrize("value", [None, b"1", b"a reason of a newer version", "\0"])
def test_a_reason_of_another_version_is_none(value: bytes | str | None) -> None:
    assert EndReason.of(value) is None
    assert EndReason.sentence(value) == "the session has ended"
