"""Settings parse once, loudly."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from pydantic import ValidationError

from mien_shared.settings import ServiceSettings, weakness

SECRET = "a secret of thirty-two bytes or more"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "MIEN_TOKEN_SECRET", "MIEN_SECRETS_DIR", "MIEN_DEMO_OPEN", "MIEN_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://there")
    monkeypatch.setenv("MIEN_TOKEN_SECRET", SECRET)
    monkeypatch.setenv("MIEN_ICE_SERVERS", '[{"urls": ["turn:t"], "username": "u", "credential": "c"}]')
    settings = ServiceSettings()
    assert settings.redis_url == "redis://there"
    assert settings.ice_servers[0].urls == ["turn:t"]
    assert SECRET not in repr(settings)


def test_a_secret_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mien_token_secret").write_text(SECRET)
    monkeypatch.setenv("MIEN_SECRETS_DIR", str(tmp_path))
    assert ServiceSettings().token_secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://user:pass-of-ours@redis.example", "REDIS_URL must begin with one of redis://"),
        ("redis+sentinel://user:pass-of-ours@one,two", "REDIS_URL does not name the master"),
        ("redis+sentinel://user:pass-of-ours@/mymaster", "REDIS_URL names no host"),
        ("redis+cluster://user:pass-of-ours@", "REDIS_URL names no host"),
        ("redis://user:pass-of-ours/2@redis.example", "REDIS_URL has no valid host and port"),
    ],
)
def test_a_malformed_url_of_redis_starts_nothing(monkeypatch: pytest.MonkeyPatch, url: str, text: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ValidationError, match=text) as refused:
        ServiceSettings(token_secret=SECRET)
    assert "pass-of-ours" not in str(refused.value)


def test_a_url_of_sentinels_and_no_url_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis+sentinel://one,two/mymaster")
    assert ServiceSettings(token_secret=SECRET).redis_url == "redis+sentinel://one,two/mymaster"
    monkeypatch.setenv("REDIS_URL", "")
    assert not ServiceSettings(token_secret=SECRET).redis_url


def test_nothing_starts_without_a_secret() -> None:
    with pytest.raises(ValidationError, match="token_secret"):
        ServiceSettings()


def test_a_secret_too_short_to_sign_with() -> None:
    with pytest.raises(ValidationError, match="MIEN_TOKEN_SECRET needs at least 32 bytes") as refused:
        ServiceSettings(token_secret="short-secret-of-ours")
    assert "short-secret-of-ours" not in str(refused.value), "an error message ends up in logs"


@pytest.mark.parametrize(
    "secret",
    [
        "change-me-change-me-change-me-0451",
        "CHANGEME_CHANGEME_CHANGEME_CHANGEME",
        "an-example-secret-for-the-manual-1",
        "please put your secret in this place",
        "Password1!Password2!Password3!zzzz",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_an_example_of_a_secret_starts_nothing(secret: str) -> None:
    with pytest.raises(ValidationError, match="MIEN_TOKEN_SECRET looks like an example") as refused:
        ServiceSettings(token_secret=secret)
    assert secret not in str(refused.value)
    assert ServiceSettings(token_secret=secret, demo_open=True)


@pytest.mark.parametrize("secret", ["s" * 40, "abcabcabc" * 4, "9f3kQ7zLw2xB" * 3, "0101101001101001" * 3])
def test_a_secret_without_variety_starts_nothing(secret: str) -> None:
    with pytest.raises(ValidationError, match="MIEN_TOKEN_SECRET has too little variety"):
        ServiceSettings(token_secret=secret)


def test_random_secrets_pass() -> None:
    made = [make(32) for make in (secrets.token_hex, secrets.token_urlsafe) for _ in range(500)]
    assert [weakness(secret) for secret in made] == [None] * len(made)


def test_turn_needs_urls_of_its_own_and_a_secret_worth_its_name() -> None:
    with pytest.raises(ValidationError, match=r"'stun:t\.example' must begin with turn: or turns:"):
        ServiceSettings(token_secret=SECRET, turn_urls=["stun:t.example"])
    with pytest.raises(ValidationError, match="MIEN_TURN_URLS needs MIEN_TURN_SECRET"):
        ServiceSettings(token_secret=SECRET, turn_urls=["turn:t.example"])
    with pytest.raises(ValidationError, match="MIEN_TURN_SECRET looks like an example"):
        ServiceSettings(token_secret=SECRET, turn_secret="an example of a secret, thirty-two bytes")


def test_demo_mode_is_for_loopback_alone() -> None:
    assert ServiceSettings(token_secret=SECRET, demo_open=True, host="127.0.0.1").demo_open
    with pytest.raises(ValidationError, match=r"MIEN_DEMO_OPEN works on loopback only, but MIEN_HOST is 0\.0\.0\.0"):
        ServiceSettings(token_secret=SECRET, demo_open=True, host="0.0.0.0")


def test_settings_do_not_change() -> None:
    settings = ServiceSettings(token_secret=SECRET)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
