"""The private parts of senders that passthrough.py and voice_passthrough.py use, as aiortc 1.16 names them."""

from __future__ import annotations

from aiortc import RTCRtpSender

STARTED, EXITED = "_RTCRtpSender__rtp_started", "_RTCRtpSender__rtp_exited"
EXTENSIONS, MID = "_RTCRtpSender__rtp_header_extensions_map", "_RTCRtpSender__mid"
NTP, TIMESTAMP = "_RTCRtpSender__ntp_timestamp", "_RTCRtpSender__rtp_timestamp"
PACKETS, BYTES = "_RTCRtpSender__packet_count", "_RTCRtpSender__octet_count"
LSR, LSR_TIME = "_RTCRtpSender__lsr", "_RTCRtpSender__lsr_time"
STREAM_ID = "_stream_id"
FIELDS = (STARTED, EXITED, EXTENSIONS, MID, NTP, TIMESTAMP, PACKETS, BYTES, LSR, LSR_TIME, STREAM_ID)


class HookPointMissing(RuntimeError):
    """The installed aiortc or aioice lacks a part that we need; the text names the part."""


def forget_time(sender: RTCRtpSender) -> None:
    """Let a sender name no time until it gets one again."""
    setattr(sender, NTP, 0)


def has_time(sender: RTCRtpSender) -> bool:
    """Whether a sender knows which time its reports can name."""
    return bool(getattr(sender, NTP))
