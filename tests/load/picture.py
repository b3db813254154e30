"""Draws a load run: latency, frame rate and CPU over the load, with the knee marked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from load.figures import HELD_FPS, HELD_MOTION_TO_PACKET_P99_MS, Level, knee
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

_INK, _FAINT = "#22313f", "#aab4be"
_COLOURS = ("#2a7fb8", "#e07b39", "#3a9d6e")
#: Colours of the CPU diagram: the measured services in colour, the load clients in grey.
_COLOUR_OF = {"gateway": "#2a7fb8", "generator": "#8e6bbf", "redis": "#c0392b", "signaling": "#3a9d6e"}
_CLIENTS = ("#b5bcc4", "#8a949e")


def draw(levels: Sequence[Level], title: str, path: Path) -> None:
    """Write a PNG. Its horizontal axis is the number of speakers if it differs between levels, else that of viewers."""
    of = "speakers" if levels[0].speakers != levels[-1].speakers else "viewers"
    load = [getattr(level, of) for level in levels]
    figure = Figure(figsize=(9, 8), layout="constrained")
    latency, rate, cpu = figure.subplots(3, 1, sharex=True)
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
    latency.yaxis.set_major_formatter(ScalarFormatter())
    latency.set_ylabel("latency, ms")

    for name, style in (("median", "-"), ("min", "--")):
        values = [getattr(level, f"fps_{name}") for level in levels]
        rate.plot(load, values, style, color=_COLOURS[2], marker="o", markersize=3, label=name)
    rate.axhline(HELD_FPS, color=_FAINT, linewidth=0.8)
    rate.set_ylim(0, 32)
    rate.set_ylabel("received frames/s\nof a viewer")

    names = sorted({name for level in levels for name in level.usage}, key=lambda name: (name.startswith("cl"), name))
    greys = itertools.cycle(_CLIENTS)
    cpu.stackplot(
        load,
        [[level.usage[name].cores if name in level.usage else 0.0 for level in levels] for name in names],
        labels=names,
        colors=[_COLOUR_OF.get(name.partition("-")[0]) or next(greys) for name in names],
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
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, handlelength=3)
    if held is not None:
        rate.annotate(
            f"holds up to {getattr(held, of)}", (getattr(held, of), 2), xytext=(4, 0), textcoords="offset points",
            color="#c0392b", fontsize=8,
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
