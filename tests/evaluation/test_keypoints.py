from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import MOVES

from mien_evaluation.clips import ClipError
from mien_evaluation.keypoints import LabelledClip, identity_of, whole


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("id10280#NXjT3732Ekg#001093#001192.mp4", "id10280"),
        ("obama_wa_01.mp4", "obama_wa"),
        ("obama_wa_08.mp4", "obama_wa"),
        ("webcam_b.mp4", "webcam"),
        ("grid_lbbc2a.mpg", "grid_lbbc2a"),
        ("reader.mp4", "reader"),
        ("07.mp4", "07"),
        ("_1.mp4", "_1"),
    ],
)
def test_whom_a_clip_shows_is_read_from_its_name(name: str, identity: str) -> None:
    assert identity_of(Path(name)) == identity


def test_a_folders_name_has_no_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "id1#v#0#9.mp4"
    folder.mkdir()
    assert identity_of(folder) == "id1"
    (tmp_path / "v1.5").mkdir()
    assert identity_of(tmp_path / "v1.5") == "v1.5"


def test_a_clip_of_crops_is_taken_whole() -> None:
    square = whole(np.zeros((256, 260, 3), np.uint8))
    assert (square.x, square.y, square.size) == (2, 0, 256)


def test_a_labelled_set_is_a_clip_at_the_size_asked_for(labelled: Callable[[str, str], Path]) -> None:
    clip = LabelledClip(labelled("talk_1", "anna"), 128)
    assert (clip.name, clip.identity, clip.count()) == ("talk_1", "anna", len(MOVES))
    frames = list(clip.frames())
    assert [frame.picture.shape for frame in frames] == [(128, 128, 3)] * len(MOVES)
    rows = np.load(labelled("again", "anna") / "keypoints.npy")
    for frame, wanted in zip(clip.frames(every=2), rows[::2], strict=True):
        assert frame.keypoints is not None
        np.testing.assert_array_equal(frame.keypoints.rows(), wanted)


def test_what_is_no_labelled_set_is_named(tmp_path: Path, labelled: Callable[[str, str], Path]) -> None:
    with pytest.raises(ClipError, match=r"is not a labelled set$"):
        LabelledClip(tmp_path, 256)
    folder = labelled("short", "anna")
    np.save(folder / "keypoints.npy", np.zeros((2, 10, 6), np.float32))
    with pytest.raises(ClipError, match=r"^short: keypoints of shape \(2, 10, 6\) do not match 4 frames$"):
        LabelledClip(folder, 256)
    (folder / "frames.npy").write_bytes(b"not an array")
    with pytest.raises(ClipError, match=r"^short is not a labelled set$"):
        LabelledClip(folder, 256)
