"""Media time: RTP's 90 kHz video clock, and capture times that wrap at 32 bits. Pure."""

from __future__ import annotations

#: RTP's clock rate for video (RFC 6184, section 8.2.1).
VIDEO_CLOCK_HZ = 90_000


def to_90k(seconds: float) -> int:
    """Seconds as ticks of RTP's 90 kHz video clock, rounded to the nearest."""
    return round(seconds * VIDEO_CLOCK_HZ)


def from_90k(ticks: int) -> float:
    """Ticks of the 90 kHz clock as seconds."""
    return ticks / VIDEO_CLOCK_HZ


def elapsed_ms_u32(now_ms: int, then_ms: int) -> int:
    """Milliseconds from `then_ms` to `now_ms` on one 32-bit clock that wraps; negative if `then_ms` is later."""
    return ((now_ms - then_ms + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
