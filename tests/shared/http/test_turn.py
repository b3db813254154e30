"""TURN credentials by the REST scheme."""

from __future__ import annotations

from mien_shared.http.turn import TurnCredentials, ice_servers_for, turn_credentials
from mien_shared.settings import IceServer, ServiceSettings

SECRET = "a secret of thirty-two bytes or more"


def test_the_credential_is_what_openssl_makes_of_it() -> None:
    # printf %s 1433895918:mbzrxpgjys | openssl dgst -sha1 -hmac north -binary | base64
    assert turn_credentials("north", "mbzrxpgjys", 1433895918) == TurnCredentials(
        "1433895918:mbzrxpgjys", "d2Q1V6JRLjCTMOhoc8cTgEoi7u0="
    )


def test_turn_comes_after_the_servers_of_the_settings_and_says_when_it_ends() -> None:
    stun = IceServer(urls=["stun:s.example"])
    settings = ServiceSettings(
        token_secret=SECRET, ice_servers=[stun], turn_urls=["turn:t.example"], turn_secret=SECRET, turn_lifetime_s=600
    )
    first, turn = ice_servers_for(settings, "a-session", now_unix_s=1000.7)
    assert first == stun
    assert turn.urls == ["turn:t.example"]
    assert turn.username is not None
    expiry, user = turn.username.split(":")
    assert expiry == "1600"
    assert "a-session" not in user
    assert turn.credential == turn_credentials(SECRET, user, 1600).credential


def test_every_connection_is_a_user_because_the_server_s_quota_is_by_user() -> None:
    settings = ServiceSettings(token_secret=SECRET, turn_urls=["turn:t.example"], turn_secret=SECRET)
    made = [ice_servers_for(settings, session, 0.0)[0].username for session in ("one", "one", "other")]
    assert len(set(made)) == 3
    digests = [str(username).partition(":")[2].partition("-")[0] for username in made]
    assert digests[0] == digests[1] != digests[2], "an operator can tell which session a user belongs to"


def test_credentials_last_an_hour_unless_the_settings_say_otherwise() -> None:
    settings = ServiceSettings(token_secret=SECRET, turn_urls=["turn:t.example"], turn_secret=SECRET)
    (turn,) = ice_servers_for(settings, "one", now_unix_s=1000.0)
    assert str(turn.username).startswith("4600:")


def test_without_turn_there_are_the_servers_of_the_settings_alone() -> None:
    assert ice_servers_for(ServiceSettings(token_secret=SECRET), "a-session", 0.0) == []
