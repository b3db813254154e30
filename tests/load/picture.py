"""A load run as a picture: latency, frame rate and CPU over the load, with the knee marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from load.figures import HELD_FPS, HELD_MOTION_TO_PACKET_P99_MS, Level, knee
from matplotlib import pyplot as plt

_INK, _FAINT = "#22313f", "#aab4be"
_COLOURS = ("#2a7fb8", "#e07b39", "#3a9d6e", "#8e6bbf", "#b5bcc4", "#8a949e")


def draw(levels: Sequence[Level], title: str, path: Path) -> None:
    """Write a PNG; the load is whatever grows from level to level, speakers or viewers."""
    of = "speakers" if levels[0].speakers != levels[-1].speakers else "viewers"
    load = [getattr(level, of) for level in levels]
    figure, (latency, rate, cpu) = plt.subplots(3, 1, figsize=(8, 8.5), sharex=True, layout="constrained")
    figure.suptitle(title, color=_INK, fontsize=11)

    for spread, colour, name in (
        ("motion_to_packet_ms", _COLOURS[0], "motion to packet"),
        ("capture_to_receiver_ms", _COLOURS[1], "capture to receiver"),
    ):
        for percentile, style in (("p50", "-"), ("p99", "--")):
            values = [getattr(getattr(level, spread), percentile) for level in levels]
            heights = [float("nan") if value is None else value for value in values]
            latency.plot(load, heights, style, color=colour, marker="o", markersize=3, label=f"{name} {percentile}")
    latency.axhline(HELD_MOTION_TO_PACKET_P99_MS, color=_FAINT, linewidth=0.8)
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")

    rate.plot(load, [level.fps_median for level in levels], color=_COLOURS[2], marker="o", markersize=3, label="median")
    rate.plot(
        load, [level.fps_min for level in levels], "--", color=_COLOURS[2], marker="o", markersize=3, label="least"
    )
    rate.axhline(HELD_FPS, color=_FAINT, linewidth=0.8)
    rate.set_ylim(0, 32)
    rate.set_ylabel("received frames/s\nof a viewer")

    names = sorted({name for level in levels for name in level.usage})
    cpu.stackplot(
        load,
        [[level.usage[name].cores if name in level.usage else 0.0 for level in levels] for name in names],
        labels=names,
        colors=_COLOURS,
        alpha=0.9,
    )
    cpu.set_ylabel("CPU, cores")
    cpu.set_xlabel(of)

    held = knee(levels)
    for axes in (latency, rate, cpu):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if held is not None:
            axes.axvline(getattr(held, of), color="#c0392b", linewidth=1.2, linestyle=":")
        axes.legend(fontsize=7, loc="best", frameon=False, ncols=2)
    if held is not None:
        rate.annotate(
            f"holds up to {getattr(held, of)}", (getattr(held, of), 2), xytext=(4, 0), textcoords="offset points",
            color="#c0392b", fontsize=8,
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
