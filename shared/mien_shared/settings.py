"""Settings every service has. Parsed once at the start, loudly, and passed on as arguments.

Each field is read from MIEN_<FIELD>, or from a file of that name under the folder MIEN_SECRETS_DIR (how Docker and
Kubernetes hand out secrets); REDIS_URL keeps the name everyone gives it.
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

#: HS256 wants a key of at least its digest's length (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32
#: 32 random characters of any alphabet from hexadecimal upwards hold fewer distinct ones less than once in a million.
_MIN_DISTINCT_CHARACTERS = 8
#: What documentation, examples and haste put in a secret's place; looked for without case, "-", "_" and blanks.
_EXAMPLE_WORDS = (
    "changeme",
    "changeit",
    "changethis",
    "replaceme",
    "replacethis",
    "placeholder",
    "example",
    "yoursecret",
    "mysecret",
    "notasecret",
    "insecure",
    "password",
    "12345678",
    "abcdefgh",
    "qwerty",
)


def _entries(value: object) -> object:
    """A list as people write one: JSON, or entries apart by commas or lines, where lines with # are comments."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("this is no JSON list") from None  # the error's own text would quote it
    lines = [line for line in value.splitlines() if not line.lstrip().startswith("#")]
    return [entry for line in lines for part in line.split(",") if (entry := part.strip())]


SecretList = Annotated[list[SecretStr], NoDecode, BeforeValidator(_entries)]
TextList = Annotated[list[str], NoDecode, BeforeValidator(_entries)]


class IceServer(BaseModel):
    """One RTCIceServer as browsers take it."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class ServiceSettings(BaseSettings):
    """What gateway, generator and signaling have in common."""

    model_config = SettingsConfigDict(
        env_prefix="MIEN_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "MIEN_REDIS_URL", "redis_url"),
        description="Unset: an embedded server, which no other service sees",
    )
    host: str = Field("127.0.0.1", description="The address that is listened on")
    port: int = Field(0, ge=0, le=65535, description="0: any free one")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG, INFO, WARNING, ERROR")
    token_secret: SecretStr = Field(description="Signs session tokens; the same in every service; 32 bytes or more")
    token_secrets_old: SecretList = Field(
        default_factory=list, description="Secrets that signed tokens before and are still taken, while keys rotate"
    )
    demo_open: bool = Field(
        False, description="No API key and no token to watch. For one machine alone: refused off loopback"
    )
    trusted_proxies: TextList = Field(
        default_factory=list,
        description="Addresses or networks of proxies whose X-Forwarded-For is believed; `*`: whoever connects",
    )
    avatar_store: str = Field("file:./var/avatars", description="A folder as file:PATH, or an s3:// URL")
    ice_servers: list[IceServer] = Field(default_factory=list, description="Handed to clients and used by signaling")
    turn_urls: list[str] = Field(
        default_factory=list, description="TURN servers (turn:, turns:) for clients, with credentials made on request"
    )
    turn_secret: SecretStr | None = Field(None, description="What coturn knows as static-auth-secret")
    turn_lifetime_s: int = Field(6 * 3600, ge=60, description="How long TURN credentials can open an allocation")
    parent_pid: int | None = Field(None, description="End when this process ends; set by `mien up`")

    @model_validator(mode="after")
    def _secrets_are_worth_their_name(self) -> Self:
        if reason := weakness(self.token_secret.get_secret_value(), example_allowed=self.demo_open):
            raise ValueError(f"MIEN_TOKEN_SECRET {reason}")
        for old in self.token_secrets_old:
            if reason := weakness(old.get_secret_value(), example_allowed=self.demo_open):
                raise ValueError(f"MIEN_TOKEN_SECRETS_OLD: one of them {reason}")
        for url in self.turn_urls:
            if not url.startswith(("turn:", "turns:")):
                raise ValueError(f"MIEN_TURN_URLS: {url!r} must begin with turn: or turns:")
        if self.turn_urls and self.turn_secret is None:
            raise ValueError("MIEN_TURN_URLS needs MIEN_TURN_SECRET, the secret that the TURN server knows")
        if self.turn_secret is not None and (reason := weakness(self.turn_secret.get_secret_value())):
            raise ValueError(f"MIEN_TURN_SECRET {reason}")
        return self

    @model_validator(mode="after")
    def _proxies_are_addresses(self) -> Self:
        for proxy in self.trusted_proxies:
            if proxy != "*":
                try:
                    ip_network(proxy)
                except ValueError as error:
                    raise ValueError(f"MIEN_TRUSTED_PROXIES: {error}") from None
        return self

    @model_validator(mode="after")
    def _demo_mode_is_for_loopback(self) -> Self:
        if self.demo_open and self.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(f"MIEN_DEMO_OPEN is for loopback alone, and MIEN_HOST is {self.host}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if folder := os.environ.get("MIEN_SECRETS_DIR"):
            sources += (SecretsSettingsSource(settings_cls, secrets_dir=folder),)
        return sources


def weakness(secret: str, example_allowed: bool = False) -> str | None:
    """What is wrong with a secret, as the end of a sentence that never quotes it; None if nothing is.

    example_allowed: only its length counts, for a demo that nobody else can reach.
    """
    if len(secret.encode()) < MIN_SECRET_BYTES:
        return f"needs at least {MIN_SECRET_BYTES} bytes"
    if example_allowed:
        return None
    bare = secret.lower().translate(str.maketrans("", "", "-_ \t"))
    if any(word in bare for word in _EXAMPLE_WORDS):
        return "looks like an example: make one of your own, for instance with `openssl rand -hex 32`"
    if len(set(secret)) < _MIN_DISTINCT_CHARACTERS or secret in (secret + secret)[1:-1]:
        return "has too little variety to be random: make one with `openssl rand -hex 32`"
    return None
