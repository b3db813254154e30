from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mien_evaluation.clips import read_picture
from mien_evaluation.reenactment import Reenacted
from mien_evaluation.sheet import Sheet


def _frame(number: int) -> Reenacted:
    def plain(*colour: int) -> np.ndarray:
        return np.full((16, 16, 3), colour, np.uint8)

    return Reenacted(number, plain(number, 0, 0), {"still": plain(0, 200, 0), "warp": plain(0, 0, number)})


def _has(sheet: np.ndarray, *colour: int) -> bool:
    return bool((sheet == colour).all(axis=-1).sum() >= 190 * 190)


def test_a_sheet_has_a_row_for_each_method_and_frames_spread_over_the_clip(tmp_path: Path) -> None:
    sheet = Sheet(frames=9, columns=3)
    for i in range(9):
        sheet.add(_frame(10 * i))
    sheet.save(tmp_path / "sheet.png")
    picture = read_picture(tmp_path / "sheet.png")
    for number in (0, 40, 80):
        assert _has(picture, number, 0, 0), f"driving frame {number}"
        assert _has(picture, 0, 0, number), f"what warp made of frame {number}"
    assert _has(picture, 0, 200, 0)
    assert not _has(picture, 30, 0, 0)


def test_a_clip_that_is_shorter_than_it_promised_still_makes_a_sheet() -> None:
    sheet = Sheet(frames=100, columns=4)
    sheet.add(_frame(0))
    assert _has(sheet.picture(), 0, 200, 0)


def test_more_columns_than_frames_show_each_frame_once() -> None:
    sheet = Sheet(frames=2, columns=8)
    for i in range(2):
        sheet.add(_frame(i))
    few, many = Sheet(frames=2, columns=2), sheet.picture()
    for i in range(2):
        few.add(_frame(i))
    assert few.picture().shape == many.shape


def test_a_sheet_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^the sheet has no frames: add at least one$"):
        Sheet(frames=3, columns=3).picture()
