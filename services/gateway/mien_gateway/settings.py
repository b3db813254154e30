"""The gateway's settings; see mien_shared.settings for how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from mien_gateway.api_keys import DIGEST_PREFIX, is_digest
from mien_shared.settings import SecretList, ServiceSettings, weakness


class GatewaySettings(ServiceSettings):
    """What the gateway alone needs to know."""

    port: int = Field(8080, ge=0, le=65535, description="Page, REST API, uplink, probes and metrics")
    public_url: str = Field("http://127.0.0.1:8080", description="Where clients find this gateway; uplink_url's base")
    signaling_url: str = Field("http://127.0.0.1:8081", description="Where clients find signaling; whep_url's base")
    web_root: Path | None = Field(None, description="A folder with index.html and what it loads; unset: no page")
    cors_origins: list[str] = Field(default_factory=list, description="Origins whose pages may call the REST API")

    api_keys: SecretList = Field(
        default_factory=list,
        description="Operators' keys, each of 32 bytes or more, or as sha256:DIGEST. Needed unless MIEN_DEMO_OPEN",
    )

    requests_per_minute: int = Field(6000, ge=1, description="Calls of one address; a quarter of it at once")
    sessions_per_minute: int = Field(600, ge=1, description="New sessions of one address, and of one API key")
    uploads_per_minute: int = Field(120, ge=1, description="Avatar uploads of one address, and of one API key")
    max_body_bytes: int = Field(16 * 1024, ge=1024, description="Longest body of any call but an avatar upload")
    max_upload_bytes: int = Field(10 * 2**20, gt=0, description="The whole body of an avatar upload")
    max_pixels: int = Field(50_000_000, gt=0, description="Of an uploaded picture, by its header")
    max_uploads: int = Field(16, gt=0, description="Avatar uploads under way at once; more are answered 503")
    upload_timeout_s: float = Field(30.0, gt=0, description="How long a body may take to arrive")
    portrait_timeout_s: float = Field(10.0, gt=0, description="How long one picture may be worked on")
    portrait_memory_bytes: int = Field(3 * 2**29, gt=0, description="Address space of the process that decodes")

    @model_validator(mode="after")
    def _operators_have_keys(self) -> Self:
        if not self.api_keys and not self.demo_open:
            raise ValueError(
                "MIEN_API_KEYS is empty, so nobody could make a session: give operators a key, for instance of "
                "`openssl rand -hex 32`, or set MIEN_DEMO_OPEN on loopback"
            )
        for key in (entry.get_secret_value() for entry in self.api_keys):
            if key.startswith(DIGEST_PREFIX) and not is_digest(key):
                raise ValueError(f"MIEN_API_KEYS: one of them has not 64 hexadecimal digits after {DIGEST_PREFIX}")
            if not key.startswith(DIGEST_PREFIX) and (reason := weakness(key)):
                raise ValueError(f"MIEN_API_KEYS: one of them {reason}")
        return self

    @model_validator(mode="after")
    def _urls_are_urls(self) -> Self:
        for url in (self.public_url, self.signaling_url, *self.cors_origins):
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} must begin with http:// or https://")
        if self.web_root is not None and not (self.web_root / "index.html").is_file():
            raise ValueError(f"MIEN_WEB_ROOT: there is no index.html in {self.web_root}")
        return self

    def uplink_url(self, session_id: str) -> str:
        """Where a session's motion packets go: ws:// or wss://."""
        return f"ws{self.public_url.removeprefix('http').rstrip('/')}/v1/sessions/{session_id}/uplink"

    def whep_url(self, session_id: str) -> str:
        """Where a session is watched."""
        return f"{self.signaling_url.rstrip('/')}/v1/whep/{session_id}"
