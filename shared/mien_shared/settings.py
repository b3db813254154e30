"""The settings that every service has. They are parsed once at the start; a wrong setting stops the service.

Each field is read from the environment variable MIEN_<FIELD>, or from a file of that name in the folder
MIEN_SECRETS_DIR (Docker and Kubernetes provide secrets this way). The URL of Redis is read from REDIS_URL as well,
which is its usual name.
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from mien_shared.bus.address import RedisUrlError, parse_address

#: HS256 requires a key at least as long as its digest (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32
#: 32 random hexadecimal characters have fewer distinct ones than this in less than one case in a million. Larger
#: alphabets have more.
_MIN_DISTINCT_CHARACTERS = 8
#: Words that examples and placeholders contain. The search ignores case, "-", "_" and blanks.
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
    """Read a list: JSON, or entries separated by commas or line breaks. Lines that begin with # are comments."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("this is not a JSON list") from None  # the original error would quote the value
    lines = [line for line in value.splitlines() if not line.lstrip().startswith("#")]
    return [entry for line in lines for part in line.split(",") if (entry := part.strip())]


SecretList = Annotated[list[SecretStr], NoDecode, BeforeValidator(_entries)]
TextList = Annotated[list[str], NoDecode, BeforeValidator(_entries)]


class IceServer(BaseModel):
    """One ICE server in the form of a browser's RTCIceServer."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class ServiceSettings(BaseSettings):
    """The settings that gateway, generator and signaling have in common."""

    model_config = SettingsConfigDict(
        env_prefix="MIEN_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "MIEN_REDIS_URL", "redis_url"),
        description="URL of Redis: a server, Sentinels or a Cluster. Unset: an embedded server for this service alone.",
    )
    host: str = Field("127.0.0.1", description="Address on which the service listens.")
    port: int = Field(0, ge=0, le=65535, description="TCP port on which the service listens. 0: any free port.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level of log messages that are written: DEBUG, INFO, WARNING or ERROR."
    )
    token_secret: SecretStr = Field(
        description="Secret that signs session tokens, at least 32 bytes. It must be the same in every service."
    )
    token_secrets_old: SecretList = Field(
        default_factory=list,
        description="Further token secrets. Tokens signed with them are accepted while the token secret is rotated.",
    )
    demo_open: bool = Field(
        False,
        description="Open access for a demo on one machine: no API keys, and no tokens to watch. Loopback only.",
    )
    trusted_proxies: TextList = Field(
        default_factory=list,
        description="Addresses or networks of the proxies whose X-Forwarded-For header is trusted. `*`: all callers.",
    )
    avatar_store: str = Field(
        "file:./var/avatars", description="Where avatars are stored: a folder as file:PATH, or an s3:// URL."
    )
    ice_servers: list[IceServer] = Field(
        default_factory=list, description="STUN and TURN servers as JSON, used by clients and by signaling itself."
    )
    turn_urls: list[str] = Field(
        default_factory=list,
        description="TURN servers (turn: or turns: URLs) for clients. Clients get temporary credentials for them.",
    )
    turn_secret: SecretStr | None = Field(
        None, description="Secret shared with the TURN server, coturn's static-auth-secret. MIEN_TURN_URLS needs it."
    )
    turn_lifetime_s: int = Field(3600, ge=60, description="Seconds for which TURN credentials can open an allocation.")
    parent_pid: int | None = Field(
        None, description="Id of the parent process. The service ends when that process ends. Set by `mien up`."
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_one(cls, url: str | None) -> str | None:
        if url:
            try:
                parse_address(url)
            except RedisUrlError as error:
                raise ValueError(f"REDIS_URL {error}") from None
        return url

    @model_validator(mode="after")
    def _secrets_are_strong(self) -> Self:
        if reason := weakness(self.token_secret.get_secret_value(), example_allowed=self.demo_open):
            raise ValueError(f"MIEN_TOKEN_SECRET {reason}")
        for old in self.token_secrets_old:
            if reason := weakness(old.get_secret_value(), example_allowed=self.demo_open):
                raise ValueError(f"MIEN_TOKEN_SECRETS_OLD: one secret {reason}")
        for url in self.turn_urls:
            if not url.startswith(("turn:", "turns:")):
                raise ValueError(f"MIEN_TURN_URLS: {url!r} must begin with turn: or turns:")
        if self.turn_urls and self.turn_secret is None:
            raise ValueError("MIEN_TURN_URLS needs MIEN_TURN_SECRET, the secret shared with the TURN server")
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
            raise ValueError(f"MIEN_DEMO_OPEN works on loopback only, but MIEN_HOST is {self.host}")
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
    """What is wrong with a secret, None for a good one. The text completes a sentence and never quotes the secret.

    example_allowed: check only the length, for a demo that no other machine can reach.
    """
    if len(secret.encode()) < MIN_SECRET_BYTES:
        return f"needs at least {MIN_SECRET_BYTES} bytes"
    if example_allowed:
        return None
    bare = secret.lower().translate(str.maketrans("", "", "-_ \t"))
    if any(word in bare for word in _EXAMPLE_WORDS):
        return "looks like an example: generate one, for instance with `openssl rand -hex 32`"
    if len(set(secret)) < _MIN_DISTINCT_CHARACTERS or secret in (secret + secret)[1:-1]:
        return "has too little variety to be random: generate one, for instance with `openssl rand -hex 32`"
    return None
