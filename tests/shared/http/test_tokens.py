"""Session tokens: what each opens, and all that opens nothing."""

from __future__ import annotations

import time

import jwt
import pytest

from mien_shared.bus.messages import SessionRecord
from mien_shared.http.principal import Grant, Principal, Role
from mien_shared.http.problems import Code, Problem
from mien_shared.http.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    LEEWAY_S,
    SPEAKER_GRANTS,
    VIEWER_GRANTS,
    TokenError,
    TokenIssuer,
    bearer_token,
    key_id,
)

SECRET = "a secret of thirty-two bytes or more"
ISSUED = TokenIssuer(SECRET)
KEY = {"kid": key_id(SECRET)}


@pytest.mark.parametrize("grant", [Grant.PUBLISH, Grant.WATCH, Grant.END])
def test_a_speaker_may_do_everything_with_its_own_session(grant: Grant) -> None:
    ISSUED.read(ISSUED.issue("s1", SPEAKER_GRANTS)).demand("s1", [grant])


@pytest.mark.parametrize("grant", [Grant.PUBLISH, Grant.END])
def test_a_viewer_may_only_watch(grant: Grant) -> None:
    token = ISSUED.issue("s1", VIEWER_GRANTS)
    ISSUED.read(token).demand("s1", [Grant.WATCH])
    with pytest.raises(Problem, match=rf"^the token does not grant {grant}$"):
        ISSUED.read(token).demand("s1", [grant])


def test_another_session() -> None:
    with pytest.raises(Problem, match=r"^the token is for another session$"):
        ISSUED.read(ISSUED.issue("s1", SPEAKER_GRANTS)).demand("s2", [Grant.WATCH])


def test_expired() -> None:
    token = ISSUED.issue("s1", SPEAKER_GRANTS, lifetime_s=60, now_s=time.time() - 61 - LEEWAY_S)
    with pytest.raises(TokenError, match=r"^the token has expired$"):
        ISSUED.read(token).demand("s1", [Grant.WATCH])


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s1", "iat": now, "exp": now + 60, "grants": ["watch"]}
    return {key: value for key, value in (whole | changes).items() if value is not None}


@pytest.mark.parametrize(
    "change", [{"aud": "mien-other"}, {"iss": "nobody"}, {"exp": None}, {"sub": None}, {"aud": None}, {"iss": None}]
)
def test_claims_that_are_not_ours(change: dict[str, object]) -> None:
    token = jwt.encode(claims(**change), SECRET, algorithm=ALGORITHM, headers=KEY)
    with pytest.raises(TokenError, match=r"^the token is not valid here$"):
        ISSUED.read(token).demand("s1", [Grant.WATCH])


def test_another_key_another_algorithm_and_none_at_all() -> None:
    for token in (
        jwt.encode(claims(), "another secret of thirty-two bytes", algorithm=ALGORITHM, headers=KEY),
        jwt.encode(claims(), SECRET * 2, algorithm="HS512", headers=KEY),
        jwt.encode(claims(), "", algorithm="none", headers=KEY),
        "not.a.token",
        "",
    ):
        with pytest.raises(TokenError, match=r"^the token is not valid here$"):
            ISSUED.read(token).demand("s1", [Grant.WATCH])


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer abc", "abc"), ("Basic abc", None), ("Bearer ", None), ("", None), (None, None)],
)
def test_the_token_of_a_header(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


def test_clocks_may_differ_a_little() -> None:
    now_s = time.time() - 60 - LEEWAY_S / 2
    ISSUED.read(ISSUED.issue("s1", SPEAKER_GRANTS, lifetime_s=60, now_s=now_s)).demand("s1", [Grant.WATCH])


def test_a_replaced_key_s_tokens_live_on_until_it_is_taken_out() -> None:
    before, after = "the secret of yesterday, long enough", "the secret of tomorrow, long enough"
    old_token = TokenIssuer(before).issue("s1", SPEAKER_GRANTS)
    rotating = TokenIssuer(after, (before,))
    rotating.read(old_token).demand("s1", [Grant.WATCH])
    new_token = rotating.issue("s1", SPEAKER_GRANTS)
    rotating.read(new_token).demand("s1", [Grant.WATCH])
    TokenIssuer(before, (after,)).read(new_token).demand("s1", [Grant.WATCH])  # a service that has not been told yet
    with pytest.raises(TokenError, match=r"^the token is not valid here$"):
        TokenIssuer(after).read(old_token).demand("s1", [Grant.WATCH])


@pytest.mark.parametrize("headers", [None, {"kid": "0123456789abcdef"}, {"kid": ""}])
def test_an_unknown_key_or_none_named_is_refused_however_well_it_is_signed(headers: dict[str, str] | None) -> None:
    token = jwt.encode(claims(), SECRET, algorithm=ALGORITHM, headers=headers)
    with pytest.raises(TokenError, match=r"^the token is not valid here$"):
        ISSUED.read(token).demand("s1", [Grant.WATCH])


def test_another_key_s_name_does_not_make_its_signature() -> None:
    old = "the secret of yesterday, long enough"
    token = jwt.encode(claims(), SECRET, algorithm=ALGORITHM, headers={"kid": key_id(old)})
    with pytest.raises(TokenError, match=r"^the token is not valid here$"):
        TokenIssuer(SECRET, (old,)).read(token)


def test_a_key_s_name_tells_nothing_of_it() -> None:
    assert SECRET not in str(jwt.get_unverified_header(ISSUED.issue("s1", SPEAKER_GRANTS)))
    assert key_id(SECRET) != key_id(SECRET + "x")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 5000])
def test_what_is_no_token_is_401(token: str) -> None:
    with pytest.raises(Problem) as refused:
        ISSUED.bearer(token)
    assert refused.value.code is Code.TOKEN_INVALID
    assert refused.value.headers == {"WWW-Authenticate": 'Bearer realm="mien", error="invalid_token"'}


def test_no_token_is_401_too() -> None:
    with pytest.raises(Problem) as refused:
        ISSUED.bearer(None)
    assert refused.value.code is Code.TOKEN_MISSING
    assert refused.value.headers == {"WWW-Authenticate": 'Bearer realm="mien"'}


def test_a_bearer_is_a_principal_that_reveals_no_token() -> None:
    token = ISSUED.issue("s1", VIEWER_GRANTS)
    principal = ISSUED.read(token)
    assert (principal.role, principal.grants, principal.scope) == (Role.BEARER, VIEWER_GRANTS, "s1")
    assert principal == ISSUED.read(token)
    assert principal.name not in token


def test_a_grant_that_this_version_does_not_know_grants_nothing() -> None:
    token = jwt.encode(claims(grants=["watch", "fly"]), SECRET, algorithm=ALGORITHM, headers=KEY)
    assert ISSUED.read(token).grants == {Grant.WATCH}


def test_operators_and_open_deployments_know_every_session_and_speak_in_none() -> None:
    for principal in (Principal.operator("k"), Principal.anyone()):
        principal.demand("any session", [Grant.WATCH])
        with pytest.raises(Problem) as refused:
            principal.demand("any session", [Grant.PUBLISH])
        assert refused.value.code is Code.TOKEN_NOT_GRANTED
    Principal.operator("k").demand("any session", [Grant.END])
    with pytest.raises(Problem):
        Principal.anyone().demand("any session", [Grant.END])


@pytest.mark.parametrize(
    ("session", "grants", "asked", "text"),
    [
        (("r", "p"), {Grant.PUBLISH}, Grant.PUBLISH, None),
        (("r", "p"), {Grant.WATCH}, Grant.PUBLISH, "the token does not grant publish"),
        (("r", "q"), {Grant.WATCH}, Grant.WATCH, None),
        (("r", "q"), set(Grant), Grant.PUBLISH, "the token does not grant publish"),
        (("r", "q"), set(Grant), Grant.END, "the token does not grant end"),
        (("other", "p"), set(Grant), Grant.WATCH, "the token is for another room"),
        ((None, None), set(Grant), Grant.WATCH, "the token is for another room"),
    ],
)
def test_a_participant_publishes_its_own_session_and_watches_those_of_its_room(
    session: tuple[str | None, str | None], grants: set[Grant], asked: Grant, text: str | None
) -> None:
    principal = ISSUED.read(ISSUED.issue("p", grants, room_id="r"))
    assert (principal.role, principal.scope, principal.room) == (Role.PARTICIPANT, "p", "r")
    room_id, participant_id = session
    record = SessionRecord(
        session_id="s1", avatar_id="a", created_at_ms=0, room_id=room_id, participant_id=participant_id
    )
    if text is None:
        principal.demand_session(record, [asked])
    else:
        with pytest.raises(Problem, match=rf"^{text}$"):
            principal.demand_session(record, [asked])
    with pytest.raises(Problem, match=r"^the token is for another session$"):
        principal.demand("s1", [asked])


def test_a_session_s_token_is_none_for_a_room() -> None:
    principal = ISSUED.read(ISSUED.issue("s1", VIEWER_GRANTS))
    assert principal.room is None
    record = SessionRecord(session_id="s1", avatar_id="a", created_at_ms=0, room_id="r", participant_id="p")
    principal.demand_session(record, [Grant.WATCH])
    with pytest.raises(Problem, match=r"^the token does not grant publish$"):
        principal.demand_session(record, [Grant.PUBLISH])


def test_a_signer_whose_clock_is_an_hour_off_signs_tokens_that_hold() -> None:
    for off_s in (3600, -3600):
        ISSUED.read(ISSUED.issue("s1", [Grant.WATCH], now_s=time.time() + off_s)).demand("s1", [Grant.WATCH])
