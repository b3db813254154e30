"""Session tokens: what each opens, and all that opens nothing."""

from __future__ import annotations

import time

import jwt
import pytest

from mien_shared.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    SPEAKER_GRANTS,
    VIEWER_GRANTS,
    Grant,
    TokenError,
    TokenIssuer,
    bearer,
)

SECRET = "a secret of thirty-two bytes or more"
ISSUED = TokenIssuer(SECRET)


@pytest.mark.parametrize("grant", list(Grant))
def test_a_speaker_may_do_everything_with_its_own_session(grant: Grant) -> None:
    ISSUED.check(ISSUED.issue("s1", SPEAKER_GRANTS), "s1", grant)


@pytest.mark.parametrize("grant", [Grant.PUBLISH, Grant.END])
def test_a_viewer_may_only_watch(grant: Grant) -> None:
    token = ISSUED.issue("s1", VIEWER_GRANTS)
    ISSUED.check(token, "s1", Grant.WATCH)
    with pytest.raises(TokenError, match=rf"^the token does not grant {grant}$"):
        ISSUED.check(token, "s1", grant)


def test_another_session() -> None:
    with pytest.raises(TokenError, match=r"^the token is for another session$"):
        ISSUED.check(ISSUED.issue("s1", SPEAKER_GRANTS), "s2", Grant.WATCH)


def test_expired() -> None:
    token = ISSUED.issue("s1", SPEAKER_GRANTS, lifetime_s=60, now_s=time.time() - 61)
    with pytest.raises(TokenError, match=r"^the token has expired$"):
        ISSUED.check(token, "s1", Grant.WATCH)


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s1", "iat": now, "exp": now + 60, "grants": ["watch"]}
    return {key: value for key, value in (whole | changes).items() if value is not None}


@pytest.mark.parametrize(
    "change", [{"aud": "mien-other"}, {"iss": "nobody"}, {"exp": None}, {"sub": None}, {"aud": None}, {"iss": None}]
)
def test_claims_that_are_not_ours(change: dict[str, object]) -> None:
    token = jwt.encode(claims(**change), SECRET, algorithm=ALGORITHM)
    with pytest.raises(TokenError, match=r"^the token is not valid here$"):
        ISSUED.check(token, "s1", Grant.WATCH)


def test_another_key_another_algorithm_and_none_at_all() -> None:
    for token in (
        jwt.encode(claims(), "another secret of thirty-two bytes", algorithm=ALGORITHM),
        jwt.encode(claims(), SECRET * 2, algorithm="HS512"),
        jwt.encode(claims(), "", algorithm="none"),
        "not.a.token",
        "",
    ):
        with pytest.raises(TokenError, match=r"^the token is not valid here$"):
            ISSUED.check(token, "s1", Grant.WATCH)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer abc", "abc"), ("Basic abc", None), ("Bearer ", None), ("", None), (None, None)],
)
def test_bearer(header: str | None, token: str | None) -> None:
    assert bearer(header) == token
