"""The results of a load run: percentiles, one report per level, the knee, and the cost of one more speaker. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from load.machine import Usage
from pydantic import BaseModel

#: Requirements for a level: nearly every frame arrives, and the delay is acceptable in a conversation.
FPS = 30.0
HELD_FPS = 0.95 * FPS
HELD_MOTION_TO_PACKET_P99_MS = 100.0


class Spread(BaseModel):
    """Mean and percentiles of many durations in milliseconds. None if nothing was measured."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Spread:
        if not values_ms:
            return cls()
        p50, p95, p99 = (round(float(value), 2) for value in np.percentile(values_ms, (50, 95, 99)))
        return cls(count=len(values_ms), mean=round(statistics.fmean(values_ms), 2), p50=p50, p95=p95, p99=p99)


class Level(BaseModel):
    """One level of load and its results.

    fps and kbit/s refer to the measured time; errors count everything from the start to its end.
    motion_to_packet_ms: from the gateway's receipt to the encoded frame, by the generators' own histogram.
    capture_to_receiver_ms: from the capture to the receiver, by the frame's trace.
    """

    speakers: int
    viewers: int
    seconds: float
    load_average: float
    motion_to_packet_ms: Spread
    capture_to_receiver_ms: Spread
    fps_min: float
    fps_median: float
    stalled_frames: int
    errors: dict[str, int]
    refused: dict[str, int]
    uplink_kbit_s: float
    downlink_kbit_s: float
    usage: dict[str, Usage]

    @property
    def holds(self) -> bool:
        """Whether no client was refused, no error occurred, and nearly every frame arrived in time."""
        p99 = self.motion_to_packet_ms.p99
        return (
            not any(self.errors.values())
            and not self.refused
            and self.fps_median >= HELD_FPS
            and p99 is not None
            and p99 <= HELD_MOTION_TO_PACKET_P99_MS
        )

    def cores(self, service: str) -> float:
        """The cores that all processes of one service use together."""
        return sum(used.cores for name, used in self.usage.items() if name.partition("-")[0] == service)


def knee(levels: Sequence[Level]) -> Level | None:
    """The last level before the first one that does not hold. None if the first level does not hold."""
    held = None
    for level in levels:
        if not level.holds:
            break
        held = level
    return held


def cost_of_one_more(levels: Sequence[Level], service: str, of: str) -> float | None:
    """Cores of a service for one more speaker or viewer: the slope of a line through the levels that hold.

    of: `speakers` or `viewers`.
    """
    held = [level for level in levels if level.holds]
    counts = [float(getattr(level, of)) for level in held]
    if len(set(counts)) < 2:
        return None
    slope, _ = np.polyfit(counts, [level.cores(service) for level in held], 1)
    return round(float(slope), 4)


def table(levels: Sequence[Level]) -> str:
    """The levels as a Markdown table."""
    services = sorted({name for level in levels for name in level.usage})
    head = [
        "speakers",
        "viewers",
        "fps median/min",
        "motion to packet p50/p95/p99 ms",
        "capture to receiver p50/p95/p99 ms",
    ]
    head += [
        "refused, errors",
        "up/down kbit/s",
        *(f"{name} cores (MiB)" for name in services),
        "load average",
        "holds",
    ]
    rows = []
    for level in levels:
        errors = level.refused | {name: count for name, count in level.errors.items() if count}
        rows.append(
            [
                str(level.speakers),
                str(level.viewers),
                f"{level.fps_median:.1f} / {level.fps_min:.1f}",
                _three(level.motion_to_packet_ms),
                _three(level.capture_to_receiver_ms),
                ", ".join(f"{count} {name}" for name, count in errors.items()) or "none",
                f"{level.uplink_kbit_s:.0f} / {level.downlink_kbit_s:.0f}",
                *(f"{level.usage[name].cores:.2f} ({level.usage[name].rss_mib:.0f})" for name in services),
                f"{level.load_average:.1f}",
                "yes" if level.holds else "no",
            ]
        )
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _three(spread: Spread) -> str:
    return " / ".join("-" if value is None else f"{value:.0f}" for value in (spread.p50, spread.p95, spread.p99))
