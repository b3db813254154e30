"""A contact sheet: a row of driving frames spread over a clip, and under it one row of results for each method."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mien_evaluation.metrics import RgbArray
from mien_evaluation.reenactment import Reenacted
from mien_generator.face.picture import scaled

_CELL = 192
_GAP = 4
_TITLES_WIDTH = 92
_HEADER_HEIGHT = 24
_BACKGROUND = 255
_INK = (40, 40, 40)
_FOOTER_HEIGHT, _FOOTER_WIDTH = 22, 480
#: Every sheet is labelled, because it shows synthetic pictures of faces.
_FOOTER = "driving and still: the clip itself; the rest is synthetic"


class Sheet:
    """Collects frames while they are made; one row for the driving clip and one for each method."""

    def __init__(self, frames: int, columns: int) -> None:
        """frames: number of frames that will be added. columns: how many to show, evenly spread, first to last."""
        self._wanted = {round(n) for n in np.linspace(0, max(frames - 1, 0), min(columns, max(frames, 1)))}
        self._shown: list[tuple[int, dict[str, RgbArray]]] = []
        self._added = 0

    def add(self, frame: Reenacted) -> None:
        """Keep the frame if the sheet shows it."""
        if self._added in self._wanted:
            self._shown.append((frame.number, _cells(frame)))
        self._added += 1

    def picture(self) -> RgbArray:
        """The sheet, RGB; raises ValueError if no frame was added."""
        shown = self._shown
        if not shown:
            raise ValueError("the sheet has no frames: add at least one")
        rows = list(shown[0][1])
        step = _CELL + _GAP
        height = _HEADER_HEIGHT + len(rows) * step + _FOOTER_HEIGHT
        width = _TITLES_WIDTH + max(len(shown) * step, _FOOTER_WIDTH)
        sheet = np.full((height, width, 3), _BACKGROUND, np.uint8)
        _write(sheet, _FOOTER, _TITLES_WIDTH, height - 8)
        for y, row in enumerate(rows):
            _write(sheet, row, 6, _HEADER_HEIGHT + y * step + _CELL // 2)
        for x, (number, cells) in enumerate(shown):
            left = _TITLES_WIDTH + x * step
            _write(sheet, f"frame {number}", left, _HEADER_HEIGHT - 8)
            for y, row in enumerate(rows):
                top = _HEADER_HEIGHT + y * step
                sheet[top : top + _CELL, left : left + _CELL] = cells[row]
        return sheet

    def save(self, path: Path) -> None:
        """Write it as a PNG; raises OSError."""
        encoded, data = cv2.imencode(".png", cv2.cvtColor(self.picture(), cv2.COLOR_RGB2BGR))
        assert encoded
        path.write_bytes(data.tobytes())


def _cells(frame: Reenacted) -> dict[str, RgbArray]:
    return {name: scaled(rgb, _CELL) for name, rgb in {"driving": frame.driving, **frame.made}.items()}


def _write(sheet: RgbArray, text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
