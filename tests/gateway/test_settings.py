"""Settings are refused loudly, and make the addresses that clients are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mien_gateway.page import security_headers
from mien_gateway.settings import GatewaySettings
from mien_shared.http.tokens import DEFAULT_LIFETIME_S

SECRET = SecretStr("a secret of thirty-two bytes or more")
API_KEYS = [SecretStr("an operator's key of thirty-two bytes or more")]


def test_makes_the_addresses_that_clients_are_given() -> None:
    settings = GatewaySettings(
        token_secret=SECRET,
        api_keys=API_KEYS,
        public_url="https://mien.example/",
        signaling_url="http://media.example:9000",
    )
    assert settings.uplink_url("abc") == "wss://mien.example/v1/sessions/abc/uplink"
    assert settings.whep_url("abc") == "http://media.example:9000/v1/whep/abc"
    policy = security_headers(settings)["Content-Security-Policy"]
    assert "connect-src 'self' http://media.example:9000 wss://mien.example;" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("field", ["public_url", "signaling_url"])
def test_an_address_without_a_scheme_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=r"'mien\.example' must begin with http:// or https://"):
        GatewaySettings.model_validate({"token_secret": SECRET, "api_keys": API_KEYS, field: "mien.example"})


def test_any_origin_is_no_origin() -> None:
    with pytest.raises(ValidationError, match=r"'\*' must begin with http"):
        GatewaySettings(token_secret=SECRET, api_keys=API_KEYS, cors_origins=["*"])


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"there is no index\.html in"):
        GatewaySettings(token_secret=SECRET, api_keys=API_KEYS, web_root=tmp_path)


def test_without_a_key_for_operators_nothing_starts_but_a_demo() -> None:
    with pytest.raises(ValidationError, match=r"MIEN_API_KEYS is empty, so no caller could create a session"):
        GatewaySettings(token_secret=SECRET)
    assert GatewaySettings(token_secret=SECRET, demo_open=True).api_keys == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "needs at least 32 bytes"),
        ("change-me-change-me-change-me-0451", "looks like an example"),
        ("ab" * 20, "has too little variety"),
        ("sha256:" + "0a" * 31, "does not have 64 hexadecimal digits after sha256:"),
    ],
)
def test_a_weak_key_starts_nothing_and_is_not_quoted(key: str, why: str) -> None:
    with pytest.raises(ValidationError, match=f"MIEN_API_KEYS: one key {why}") as refused:
        GatewaySettings(token_secret=SECRET, api_keys=[*API_KEYS, SecretStr(key)])
    assert key not in str(refused.value)


@pytest.mark.parametrize("text", ["{0},{1}", "{0}\n{1}\n", "# the old one\n{0}\n\n  {1}  ", '["{0}", "{1}"]'])
def test_keys_come_as_a_list_or_one_a_line(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = ["9f3kQ7zLw2xB-uMtP0aYc5RjHnEv8sGd", "sha256:" + "0123456789abcdef" * 4]
    monkeypatch.setenv("MIEN_API_KEYS", text.format(*keys))
    made = GatewaySettings(token_secret=SECRET)
    assert [key.get_secret_value() for key in made.api_keys] == keys
    assert keys[0] not in repr(made)
    monkeypatch.delenv("MIEN_API_KEYS")
    (tmp_path / "mien_api_keys").write_text(text.format(*keys))
    monkeypatch.setenv("MIEN_SECRETS_DIR", str(tmp_path))
    assert [key.get_secret_value() for key in GatewaySettings(token_secret=SECRET).api_keys] == keys


def test_a_list_that_is_no_json_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_API_KEYS", "[9f3kQ7zLw2xB-uMtP0aYc5RjHnEv8sGd")
    with pytest.raises(ValidationError, match="this is not a JSON list") as refused:
        GatewaySettings(token_secret=SECRET)
    assert "9f3k" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"upload_budget_bytes": 10 * 2**20 - 1}, "MIEN_UPLOAD_BUDGET_BYTES must be at least MIEN_MAX_UPLOAD_BYTES"),
        ({"avatar_unused_s": 3599}, "MIEN_AVATAR_UNUSED_S must be 0 or at least 3600"),
        ({"no_speaker_s": 14}, "MIEN_NO_SPEAKER_S must be 0 or at least 15"),
        ({"max_session_s": -1}, "max_session_s"),
        ({"max_avatars": -1}, "max_avatars"),
    ],
)
def test_limits_that_cannot_work_are_refused(changes: dict[str, int], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        GatewaySettings.model_validate({"token_secret": SECRET, "api_keys": API_KEYS} | changes)


def test_sessions_end_with_their_tokens_and_avatars_stay_by_default() -> None:
    settings = GatewaySettings(token_secret=SECRET, api_keys=API_KEYS)
    assert settings.max_session_s == DEFAULT_LIFETIME_S
    assert (settings.no_speaker_s, settings.avatar_unused_s, settings.max_avatars) == (120, 0, 1000)


def test_limits_are_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"NO_SPEAKER_S": 15, "MAX_SESSION_S": 60, "MAX_AVATARS": 1, "AVATAR_UNUSED_S": 3600}
    for name, value in limits.items():
        monkeypatch.setenv(f"MIEN_{name}", str(value))
    monkeypatch.setenv("MIEN_UPLOAD_BUDGET_BYTES", str(2**30))
    settings = GatewaySettings(token_secret=SECRET, api_keys=API_KEYS)
    assert {name: getattr(settings, name.lower()) for name in limits} == limits
    assert settings.upload_budget_bytes == 2**30
