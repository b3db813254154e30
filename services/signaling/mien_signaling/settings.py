"""What signaling alone can be told; the rest is mien_shared.settings."""

from __future__ import annotations

from typing import Self

from pydantic import Field, IPvAnyAddress, model_validator

from mien_shared.settings import ServiceSettings
from mien_signaling.feedback import BitrateLimits


class SignalingSettings(ServiceSettings):
    """Limits on viewers and their requests, and the range in which their feedback may move an encoder."""

    port: int = Field(8081, ge=0, le=65535, description="WHEP, probes and metrics")
    cors_origins: list[str] = Field(
        default_factory=list, description="Origins whose pages may watch, as JSON; empty where one proxy serves all"
    )
    public_ip: IPvAnyAddress | None = Field(
        None, description="Where viewers reach our media, if not at our own addresses: a NAT that keeps port numbers"
    )
    max_viewers: int = Field(400, ge=1, description="Viewers of this process")
    max_viewers_per_session: int = Field(200, ge=1, description="Viewers of one session in this process")
    connect_timeout_s: float = Field(10.0, gt=0, description="A viewer without ICE and DTLS by then is freed")
    linger_s: float = Field(2.0, ge=0, description="How long a session's subscription outlives its last viewer")
    max_body_bytes: int = Field(64 * 1024, ge=1024, description="Longest SDP taken")
    joins_per_minute: int = Field(120, ge=1, description="POSTs of one address; a quarter of it at once")
    session_joins_per_minute: int = Field(600, ge=1, description="POSTs to one session, whoever sends them")
    updates_per_minute: int = Field(600, ge=1, description="PATCHes, and apart from them DELETEs, of one address")
    min_bitrate_bps: int = Field(150_000, gt=0, description="No feedback presses a session below")
    start_bitrate_bps: int = Field(1_200_000, gt=0, description="Each viewer's target before there is feedback")
    max_bitrate_bps: int = Field(2_500_000, gt=0, description="No feedback raises a session above")

    @model_validator(mode="after")
    def _bitrates_are_in_order(self) -> Self:
        if not self.min_bitrate_bps <= self.start_bitrate_bps <= self.max_bitrate_bps:
            raise ValueError("bitrates must be in order: min <= start <= max")
        return self

    @property
    def bitrate_limits(self) -> BitrateLimits:
        return BitrateLimits(self.min_bitrate_bps, self.start_bitrate_bps, self.max_bitrate_bps)
