from __future__ import annotations

import pytest
from pydantic import ValidationError

from mien_shared.settings import IceServer
from mien_signaling.app import create_app
from mien_signaling.sdp_http import ice_server_links
from mien_signaling.settings import SignalingSettings

SECRET = "a secret of thirty-two bytes or more"


def test_origins_and_ice_servers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_TOKEN_SECRET", SECRET)
    monkeypatch.setenv("MIEN_CORS_ORIGINS", '["http://page.example"]')
    monkeypatch.setenv("MIEN_ICE_SERVERS", '[{"urls": ["stun:stun.example"]}]')
    settings = SignalingSettings()
    assert settings.cors_origins == ["http://page.example"]
    assert settings.ice_servers == [IceServer(urls=["stun:stun.example"])]
    assert settings.port == 8081


def test_an_sfu_is_a_url_with_known_placeholders() -> None:
    assert SignalingSettings(token_secret=SECRET).sfu is None
    settings = SignalingSettings(
        token_secret=SECRET,
        sfu_whip_url="https://sfu.test/{session_id}",
        sfu_bearer="b",
        sfu_origins="https://edge.test",
    )
    assert settings.sfu is not None and settings.sfu.origins == ("https://edge.test",)
    assert "bearer" not in repr(settings.sfu)
    for wrong in ("sfu.test", "https://sfu.test/{id}"):
        with pytest.raises(ValidationError, match="MIEN_SFU_WHIP_URL"):
            SignalingSettings(token_secret=SECRET, sfu_whip_url=wrong)


def test_bitrates_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match="bitrates must be in order: min <= start <= max"):
        SignalingSettings(token_secret=SECRET, min_bitrate_bps=2_000_000)


def test_an_ice_server_that_cannot_be_one_stops_the_start() -> None:
    settings = SignalingSettings(token_secret=SECRET, ice_servers=[IceServer(urls=["http://x"])])
    with pytest.raises(ValueError, match="malformed uri"):
        create_app(settings)


def test_links_carry_credentials_quoted() -> None:
    server = IceServer(urls=["turn:a.example", "turns:a.example"], username='a"b', credential="c\\d")
    attributes = 'rel="ice-server"; username="a\\"b"; credential="c\\\\d"; credential-type="password"'
    assert ice_server_links(server) == [f"<turn:a.example>; {attributes}", f"<turns:a.example>; {attributes}"]
