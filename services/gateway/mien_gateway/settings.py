"""The gateway's settings. mien_shared.settings describes how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from mien_gateway.api_keys import DIGEST_PREFIX, is_digest
from mien_shared.settings import SecretList, ServiceSettings, weakness

#: Uses are noted every ten minutes, and a shorter limit would delete avatars that are in use.
_SHORTEST_AVATAR_UNUSED_S = 3600
#: A gateway notes its speakers every five seconds, and a shorter limit would end sessions that have one.
_SHORTEST_NO_SPEAKER_S = 15


class GatewaySettings(ServiceSettings):
    """The gateway's settings, in addition to those of every service."""

    port: int = Field(
        8080, ge=0, le=65535, description="TCP port of page, REST API, uplink, probes and metrics. 0: any free port."
    )
    public_url: str = Field(
        "http://127.0.0.1:8080", description="URL at which clients reach this gateway. uplink_url begins with it."
    )
    signaling_url: str = Field(
        "http://127.0.0.1:8081", description="URL at which clients reach signaling. whep_url begins with it."
    )
    web_root: Path | None = Field(
        None, description="Folder with the pages: index.html, room/ and the files they load. Unset: no page is served."
    )
    cors_origins: list[str] = Field(
        default_factory=list, description="Origins whose pages may call the REST API, as JSON."
    )

    api_keys: SecretList = Field(
        default_factory=list,
        description="Operators' API keys: at least 32 bytes each, or sha256:DIGEST. Required without MIEN_DEMO_OPEN.",
    )

    requests_per_minute: int = Field(
        6000, ge=1, description="Requests per minute allowed for one address. A quarter of them may come at once."
    )
    sessions_per_minute: int = Field(
        600, ge=1, description="New sessions per minute allowed for one address, and for one API key."
    )
    uploads_per_minute: int = Field(
        120, ge=1, description="Avatar uploads per minute allowed for one address, and for one API key."
    )
    participant_uploads_per_minute: int = Field(
        12, ge=1, description="Avatar uploads per minute allowed for one participant of a room."
    )
    max_body_bytes: int = Field(
        16 * 1024, ge=1024, description="Largest request body in bytes. Avatar uploads have their own limit."
    )
    max_upload_bytes: int = Field(10 * 2**20, gt=0, description="Largest request body of an avatar upload in bytes.")
    max_pixels: int = Field(
        50_000_000, gt=0, description="Most pixels of an uploaded picture. Checked before the picture is decoded."
    )
    max_uploads: int = Field(
        16, gt=0, description="Most avatar uploads in progress at once. Further uploads are answered with 503."
    )
    upload_budget_bytes: int = Field(
        64 * 2**20,
        gt=0,
        description="Memory in bytes for all uploads in progress together. Further uploads are answered with 503.",
    )
    upload_timeout_s: float = Field(30.0, gt=0, description="Seconds within which the body of an upload must arrive.")
    portrait_timeout_s: float = Field(
        10.0, gt=0, description="Seconds within which one picture must be processed. Then its process is ended."
    )
    portrait_memory_bytes: int = Field(
        3 * 2**29, gt=0, description="Limit in bytes on the address space of the process that decodes pictures."
    )
    photographs: bool = Field(
        True,
        description="Take photographs as avatars. Off: only bundled avatars, and drawings that an API key uploads.",
    )
    max_avatars: int = Field(
        1000, ge=0, description="Most avatars in the store, without the bundled ones. 0: there is no limit."
    )
    max_avatars_per_participant: int = Field(
        5, ge=0, description="Most pictures that one participant's identity has uploaded. 0: participants upload none."
    )
    avatar_unused_s: int = Field(
        0, ge=0, description="Seconds without a session after which an avatar is deleted, at least 3600. 0: never."
    )
    no_speaker_s: int = Field(
        120, ge=0, description="Seconds without an uplink after which a session is ended, at least 15. 0: no limit."
    )
    max_session_s: int = Field(
        12 * 3600, ge=0, description="Seconds after its creation at which a session is ended. 0: there is no limit."
    )

    max_rooms_per_key: int = Field(100, ge=0, description="Most rooms that one API key has at once. 0: no limit.")
    max_participants: int = Field(
        50, ge=1, le=200, description="Most participants of a room. A room may ask for fewer, not for more."
    )
    room_empty_s: int = Field(
        300,
        ge=10,
        le=3600,
        description="Seconds without a participant after which a room ends, if it asks for no other.",
    )
    room_join_s: int = Field(
        120, ge=10, le=3600, description="Seconds within which a participant must connect to the room's events."
    )
    room_departure_s: int = Field(
        60, ge=10, le=3600, description="Seconds without a connection after which a participant has left the room."
    )
    max_room_s: int = Field(
        12 * 3600, ge=0, description="Seconds after its creation at which a room is ended. 0: there is no limit."
    )
    max_webhooks: int = Field(10, ge=0, le=100, description="Most webhooks of this deployment.")
    webhook_private: bool = Field(
        False, description="Send webhooks to loopback and private addresses too, and over plain http."
    )

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.upload_budget_bytes < self.max_upload_bytes:
            raise ValueError("MIEN_UPLOAD_BUDGET_BYTES must be at least MIEN_MAX_UPLOAD_BYTES")
        if 0 < self.avatar_unused_s < _SHORTEST_AVATAR_UNUSED_S:
            raise ValueError(f"MIEN_AVATAR_UNUSED_S must be 0 or at least {_SHORTEST_AVATAR_UNUSED_S}")
        if 0 < self.no_speaker_s < _SHORTEST_NO_SPEAKER_S:
            raise ValueError(f"MIEN_NO_SPEAKER_S must be 0 or at least {_SHORTEST_NO_SPEAKER_S}")
        return self

    @model_validator(mode="after")
    def _operators_have_keys(self) -> Self:
        if not self.api_keys and not self.demo_open:
            raise ValueError(
                "MIEN_API_KEYS is empty, so no caller could create a session: set a key, for instance from "
                "`openssl rand -hex 32`, or set MIEN_DEMO_OPEN on loopback"
            )
        for key in (entry.get_secret_value() for entry in self.api_keys):
            if key.startswith(DIGEST_PREFIX) and not is_digest(key):
                raise ValueError(f"MIEN_API_KEYS: one key does not have 64 hexadecimal digits after {DIGEST_PREFIX}")
            if not key.startswith(DIGEST_PREFIX) and (reason := weakness(key)):
                raise ValueError(f"MIEN_API_KEYS: one key {reason}")
        return self

    @model_validator(mode="after")
    def _urls_are_valid(self) -> Self:
        for url in (self.public_url, self.signaling_url, *self.cors_origins):
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} must begin with http:// or https://")
        if self.web_root is not None and not (self.web_root / "index.html").is_file():
            raise ValueError(f"MIEN_WEB_ROOT: there is no index.html in {self.web_root}")
        return self

    def uplink_url(self, session_id: str) -> str:
        """The ws:// or wss:// URL that takes a session's motion packets."""
        return f"ws{self.public_url.removeprefix('http').rstrip('/')}/v1/sessions/{session_id}/uplink"

    def whep_url(self, session_id: str) -> str:
        """The URL at which viewers watch a session."""
        return f"{self.signaling_url.rstrip('/')}/v1/whep/{session_id}"

    def room_whip_url(self, room_id: str) -> str:
        """The URL at which a participant sends its voice and motion."""
        return f"{self.signaling_url.rstrip('/')}/v1/whip/rooms/{room_id}"

    def room_whep_url(self, room_id: str) -> str:
        """The URL at which a participant watches and hears everyone of its room."""
        return f"{self.signaling_url.rstrip('/')}/v1/whep/rooms/{room_id}"

    def room_url(self, room_id: str, token: str) -> str:
        """The page's URL of a room. The token is in the fragment, which a browser sends to no server."""
        return f"{self.public_url.rstrip('/')}/room/{room_id}#token={token}"

    def events_url(self, room_id: str) -> str:
        """The ws:// or wss:// URL of a room's events."""
        return f"ws{self.public_url.removeprefix('http').rstrip('/')}/v1/rooms/{room_id}/events"
