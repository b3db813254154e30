"""Small labelled sets for tests: discs as eyes and mouth on a moving head, with exact keypoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

SIDE = 96

#: Places of the parts of the drawn face, in the order of FaceKeypoint.
LAYOUT = np.array(
    [
        (-0.3, -0.4), (0.3, -0.4), (-0.25, -0.25), (0.25, -0.25), (0.0, 0.0),
        (0.0, 0.18), (0.0, 0.26), (0.0, 0.45), (-0.4, 0.1), (0.4, 0.1),
    ]
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: pictures this small are slower with several."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_set(folder: Path, identity: str, kind: str, frames: int, seed: int) -> None:
    """Write one labelled set of a face that turns and shifts from frame to frame."""
    random = np.random.default_rng(seed)
    skin, background = random.uniform(80, 230, 3), random.uniform(0, 255, 3)
    pictures, rows = [], []
    for _ in range(frames):
        angle, shift = random.uniform(-0.2, 0.2), random.uniform(-0.1, 0.1, 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = LAYOUT @ turn.T + shift
        picture = np.full((SIDE, SIDE, 3), background, np.uint8)

        def at(point: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[int, int]:
            x, y = (point + 1) * SIDE / 2 - 0.5
            return round(x), round(y)

        cv2.ellipse(picture, at(shift), (SIDE // 4, SIDE // 3), np.degrees(angle), 0, 360, skin.tolist(), -1)
        for index, radius in ((2, 4), (3, 4), (5, 3), (6, 3)):
            cv2.circle(picture, at(points[index]), radius, (20, 20, 60 if index > 3 else 20), -1)
        pictures.append(picture)
        rows.append(np.concatenate([points, np.tile(turn.ravel(), (10, 1))], axis=1))
    folder.mkdir(parents=True)
    np.save(folder / "frames.npy", np.stack(pictures))
    np.save(folder / "keypoints.npy", np.stack(rows).astype(np.float32))
    (folder / "meta.json").write_text(json.dumps({"identity": identity, "kind": kind, "source": "drawn by a test"}))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and two stills. One clip is of the identity `held`, which is never trained on."""
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "a", "anna", "clip", 6, 1)
    write_set(folder / "b", "ben", "clip", 4, 2)
    write_set(folder / "c", "held", "clip", 4, 3)
    write_set(folder / "d", "dora", "still", 1, 4)
    write_set(folder / "e", "emil", "still", 1, 5)
    return folder


@pytest.fixture
def make_set() -> Callable[[Path, str, str, int, int], None]:
    return write_set
