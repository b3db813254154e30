"""Settings parse once, loudly."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mien_shared.settings import ServiceSettings

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


def test_nothing_starts_without_a_secret() -> None:
    with pytest.raises(ValidationError, match="token_secret"):
        ServiceSettings()


def test_a_secret_too_short_to_sign_with() -> None:
    with pytest.raises(ValidationError, match="MIEN_TOKEN_SECRET needs at least 32 bytes"):
        ServiceSettings(token_secret="short")


def test_demo_mode_is_for_loopback_alone() -> None:
    assert ServiceSettings(token_secret=SECRET, demo_open=True, host="127.0.0.1").demo_open
    with pytest.raises(ValidationError, match=r"MIEN_DEMO_OPEN is for loopback alone, and MIEN_HOST is 0\.0\.0\.0"):
        ServiceSettings(token_secret=SECRET, demo_open=True, host="0.0.0.0")


def test_settings_do_not_change() -> None:
    settings = ServiceSettings(token_secret=SECRET)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
