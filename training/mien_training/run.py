"""Shared by all training steps: a run's folder with checkpoint, curves and sample sheets, and the weights' average."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

CHECKPOINT = "checkpoint.pt"
CURVES = "curves.csv"


class RunError(RuntimeError):
    """A run's folder cannot be used; the text says why."""


class Run:
    """A folder: checkpoint.pt (all that resuming needs), curves-STAGE.csv (a row per report), sheet-*.png (samples)."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        if not resume and (folder / CHECKPOINT).exists():
            raise RunError(f"{folder.name} already holds a run: resume it, or name another folder")
        self._resume = resume

    def checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The last saved state; None in a new run. Loads no code. Raises RunError if the file is not a checkpoint."""
        path = self.folder / CHECKPOINT
        if not (self._resume and path.exists()):
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch documents no common base class for the errors of a damaged file
            raise RunError(f"{path.name} in {self.folder.name} is not a checkpoint: {error}") from error
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint; it replaces the old one atomically."""
        partial = self.folder / f"{CHECKPOINT}.partial"
        torch.save(dict(state), partial)
        os.replace(partial, self.folder / CHECKPOINT)

    def report(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Append one row to curves-STAGE.csv."""
        path = self.folder / f"curves-{stage}.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["step", *values])
            rows.writerow([step, *(f"{value:.6g}" for value in values.values())])

    def sheet(self, name: str, rows: torch.Tensor) -> None:
        """Write (R, C, 3, H, W) pictures in [0, 1] as one PNG of R rows and C columns."""
        pixels: NDArray[np.uint8] = (
            (
                rows.detach()
                .float()
                .clamp(0, 1)
                .mul(255)
                .round()
                .byte()
                .permute(0, 3, 1, 4, 2)
                .flatten(2, 3)
                .flatten(0, 1)
            )
            .cpu()
            .numpy()
        )
        cv2.imwrite(str(self.folder / f"sheet-{name}.png"), pixels[..., ::-1])


class Progress:
    """A progress bar on standard error; if that is not a terminal, a line for each report."""

    def __init__(self, title: str, steps: int) -> None:
        self._title, self._steps = title, steps
        self._terminal = sys.stderr.isatty()

    def at(self, step: int, values: Mapping[str, float]) -> None:
        figures = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        filled = "#" * round(24 * step / max(1, self._steps))
        line = f"{self._title} [{filled:<24}] {step}/{self._steps} {figures}"
        sys.stderr.write(f"\r{line}\x1b[K" if self._terminal and step < self._steps else f"{line}\n")
        sys.stderr.flush()


class Average:
    """The exponential moving average of a network's weights. Buffers are not averaged: the newest are kept."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, network: nn.Module) -> None:
        self._updates += 1
        # A new average forgets faster. Otherwise it would stay close to the initial weights.
        keep = min(self._decay, (1 + self._updates) / (10 + self._updates))
        parameters = dict(network.named_parameters())
        for name, value in network.state_dict().items():
            if name in parameters:
                self.weights[name].lerp_(value.detach(), 1 - keep)
            else:
                self.weights[name].copy_(value)

    def state(self) -> dict[str, Any]:
        return {"updates": self._updates, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._updates = int(state["updates"])
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)


class Meter:
    """Means of the values added since the last take()."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._count += 1

    def take(self) -> dict[str, float]:
        means = {name: value / max(1, self._count) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
