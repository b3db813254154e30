"""Pictures are turned as players turn them."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clip_files import MATRICES, corners, stored_for, turned, write_clip

from mien_shared.media.upright import Orientation

SHOWN = corners(64, 96)


@pytest.mark.parametrize("name", MATRICES)
def test_a_stored_picture_is_turned_as_its_matrix_says(tmp_path: Path, name: str) -> None:
    stored = stored_for(MATRICES[name], SHOWN)
    path = turned(write_clip(tmp_path / "clip.mp4", [stored]), MATRICES[name])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        upright = Orientation.of(frame).upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    assert upright.shape == SHOWN.shape
    assert upright.flags.c_contiguous
    np.testing.assert_allclose(upright[8::16, 8::16].astype(int), SHOWN[8::16, 8::16], atol=12)


@pytest.mark.parametrize("degrees", [0, 90, 180, -180, 270, -90, -270])
def test_a_rotation_is_counterclockwise(degrees: int) -> None:
    np.testing.assert_array_equal(Orientation.from_rotation(degrees).upright(SHOWN), np.rot90(SHOWN, degrees // 90))


def test_a_slight_tilt_is_left() -> None:
    tilted = struct.pack("=9i", 65000, 8000, 0, -8000, 65000, 0, 0, 0, 1 << 30)
    assert Orientation.from_matrix(tilted) == Orientation()


@pytest.mark.parametrize("matrix", [b"", b"\0" * 35, b"\0" * 36])
def test_a_matrix_that_says_nothing_turns_nothing(matrix: bytes) -> None:
    assert Orientation.from_matrix(matrix) == Orientation()


def test_side_data_that_pyav_does_not_know_still_leaves_the_rotation() -> None:
    class Frame(SimpleNamespace):
        @property
        def side_data(self) -> object:
            raise ValueError("31 is not a valid Type")  # PyAV 18 with a frame's EXIF

    assert Orientation.of(Frame(rotation=90)) == Orientation.from_rotation(90)
