"""Settings every service has. Parsed once at the start, loudly, and passed on as arguments.

Each field is read from MIEN_<FIELD>, or from a file of that name under the folder MIEN_SECRETS_DIR (how Docker and
Kubernetes hand out secrets); REDIS_URL keeps the name everyone gives it.
"""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

#: HS256 wants a key of at least its digest's length (RFC 7518, section 3.2).
MIN_SECRET_BYTES = 32


class IceServer(BaseModel):
    """One RTCIceServer as browsers take it."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class ServiceSettings(BaseSettings):
    """What gateway, generator and signaling have in common."""

    model_config = SettingsConfigDict(env_prefix="MIEN_", extra="ignore", frozen=True, populate_by_name=True)

    redis_url: str | None = Field(None, validation_alias=AliasChoices("REDIS_URL", "MIEN_REDIS_URL", "redis_url"))
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    token_secret: SecretStr = Field(description="Signs session tokens; the same in every service; 32 bytes or more")
    demo_open: bool = Field(
        False, description="Watch and list without a token. For one machine alone: refused off loopback"
    )
    avatar_store: str = Field("file:./var/avatars", description="A folder as file:PATH, or an s3:// URL")
    ice_servers: list[IceServer] = Field(default_factory=list, description="Handed to clients and used by signaling")
    parent_pid: int | None = Field(None, description="End when this process ends; set by `mien up`")

    @model_validator(mode="after")
    def _secret_is_worth_its_name(self) -> Self:
        if len(self.token_secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"MIEN_TOKEN_SECRET needs at least {MIN_SECRET_BYTES} bytes")
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
