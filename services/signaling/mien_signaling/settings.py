"""Signaling's settings. mien_shared.settings describes how they are read."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, IPvAnyAddress, SecretStr, model_validator

from mien_shared.settings import ServiceSettings, TextList
from mien_signaling.feedback import BitrateLimits
from mien_signaling.sfu_target import SfuTarget

#: Most slots that a deployment can allow: a grid of 5 x 5 without oneself.
MAX_SLOTS = 24


class SignalingSettings(ServiceSettings):
    """Limits on viewers and their requests, and the range in which their feedback may move the bitrate target."""

    port: int = Field(8081, ge=0, le=65535, description="TCP port of WHEP, WHIP, probes and metrics. 0: any free port.")
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Origins whose pages may watch and speak, as JSON. Not needed where one proxy serves everything.",
    )
    public_ip: IPvAnyAddress | None = Field(
        None,
        description="Address at which viewers reach the media through a NAT that keeps port numbers. Unset: no NAT.",
    )
    media_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="One port for the media of all viewers, UDP and TCP. Unset: a UDP port for each viewer, no TCP.",
    )
    max_viewers: int = Field(
        400,
        ge=1,
        description="Most viewers of this process. One of a room counts once for each participant that it is sent.",
    )
    max_viewers_per_session: int = Field(200, ge=1, description="Most viewers of one session in this process.")
    max_viewers_per_token: int = Field(
        200,
        ge=1,
        description="Most viewers with the same token in this process. A demo without tokens has no such limit.",
    )
    max_room_slots: int = Field(
        12,
        ge=1,
        le=MAX_SLOTS,
        description="Most slots of a participant's connection to its room: so many others it sees at once.",
    )
    max_speakers: int = Field(200, ge=1, description="Most speakers whose uplink is a WHIP connection of this process.")
    connect_timeout_s: float = Field(
        10.0, gt=0, description="Seconds after its answer within which a viewer or speaker must complete ICE and DTLS."
    )
    linger_s: float = Field(
        2.0, ge=0, description="Seconds for which the subscription to a session outlives its last viewer."
    )
    max_body_bytes: int = Field(192 * 1024, ge=1024, description="Largest request body (SDP) in bytes.")
    joins_per_minute: int = Field(
        120, ge=1, description="POST requests per minute allowed for one address. A quarter of them may come at once."
    )
    session_joins_per_minute: int = Field(
        600, ge=1, description="POST requests per minute allowed for one session, from all addresses together."
    )
    updates_per_minute: int = Field(
        600, ge=1, description="PATCH requests per minute allowed for one address, and as many DELETE requests."
    )
    min_bitrate_bps: int = Field(150_000, gt=0, description="Lowest bitrate target of a session, in bits per second.")
    start_bitrate_bps: int = Field(
        1_200_000, gt=0, description="Bitrate target of each viewer before its first feedback, in bits per second."
    )
    max_bitrate_bps: int = Field(
        2_500_000, gt=0, description="Highest bitrate target of a session, in bits per second."
    )
    sfu_whip_url: str | None = Field(
        None,
        description="WHIP endpoint of an SFU to which sessions are published; may contain {session_id}. Unset: none.",
    )
    sfu_bearer: SecretStr | None = Field(
        None, description="Bearer for that endpoint; may contain {stream_key}. Unset: requests have none."
    )
    sfu_sessions: Literal["ordered", "all"] = Field(
        "ordered", description="Which sessions are published: those whose egress an operator has ordered, or `all`."
    )
    sfu_origins: TextList = Field(
        default_factory=list,
        description="Further origins of that SFU, to which it may redirect or at which its sessions may be.",
    )
    max_sfu_sessions: int = Field(200, ge=1, description="Most sessions that this process publishes to the SFU.")

    @model_validator(mode="after")
    def _sfu_is_one(self) -> Self:
        try:
            _ = self.sfu
        except ValueError as error:
            raise ValueError(f"MIEN_SFU_WHIP_URL, MIEN_SFU_BEARER or MIEN_SFU_ORIGINS: {error}") from None
        return self

    @property
    def sfu(self) -> SfuTarget | None:
        """The operator's SFU, None without one."""
        if not self.sfu_whip_url:
            return None
        bearer = "" if self.sfu_bearer is None else self.sfu_bearer.get_secret_value().strip()
        return SfuTarget(self.sfu_whip_url, bearer or None, tuple(self.sfu_origins))

    @model_validator(mode="after")
    def _bitrates_are_in_order(self) -> Self:
        if not self.min_bitrate_bps <= self.start_bitrate_bps <= self.max_bitrate_bps:
            raise ValueError("bitrates must be in order: min <= start <= max")
        return self

    @property
    def bitrate_limits(self) -> BitrateLimits:
        return BitrateLimits(self.min_bitrate_bps, self.start_bitrate_bps, self.max_bitrate_bps)
