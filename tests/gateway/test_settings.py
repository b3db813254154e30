"""Settings are refused loudly, and make the addresses that clients are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mien_gateway.page import security_headers
from mien_gateway.settings import GatewaySettings

SECRET = SecretStr("a secret of thirty-two bytes or more")


def test_makes_the_addresses_that_clients_are_given() -> None:
    settings = GatewaySettings(
        token_secret=SECRET, public_url="https://mien.example/", signaling_url="http://media.example:9000"
    )
    assert settings.uplink_url("abc") == "wss://mien.example/v1/sessions/abc/uplink"
    assert settings.whep_url("abc") == "http://media.example:9000/v1/whep/abc"
    policy = security_headers(settings)["Content-Security-Policy"]
    assert "connect-src 'self' http://media.example:9000 wss://mien.example;" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("field", ["public_url", "signaling_url"])
def test_an_address_without_a_scheme_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=r"'mien\.example' must begin with http:// or https://"):
        GatewaySettings.model_validate({"token_secret": SECRET, field: "mien.example"})


def test_any_origin_is_no_origin() -> None:
    with pytest.raises(ValidationError, match=r"'\*' must begin with http"):
        GatewaySettings(token_secret=SECRET, cors_origins=["*"])


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"there is no index\.html in"):
        GatewaySettings(token_secret=SECRET, web_root=tmp_path)
