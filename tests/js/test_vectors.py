"""The vectors that clients/js is tested against are what Python computes now."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from js.modules import load
from numpy.typing import NDArray

from mien_shared.wire.motion_v1 import PACKET_BYTES

FOLDER = Path(__file__).parent / "vectors"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return load(FOLDER / "make.py")


def test_crops_and_keypoints(make: ModuleType) -> None:
    kept, made = json.loads((FOLDER / "crops.json").read_text()), make.crops()
    assert kept["picture_sha256"] == made["picture_sha256"]
    for before, now in zip(kept["crops"], made["crops"], strict=True):
        assert before["square"] == now["square"]
        # OpenCV's and ONNX Runtime's last digits differ between processors.
        assert now["block_sums"] == pytest.approx(before["block_sums"], abs=8)
        assert now["keypoints"] == pytest.approx(before["keypoints"], abs=2e-5)
        assert now["presence"] == pytest.approx(before["presence"], abs=2e-5)


def test_the_finder(make: ModuleType) -> None:
    kept, made = json.loads((FOLDER / "finder.json").read_text()), make.finder()
    for part in ("grids", "framings", "answers"):
        assert kept[part] == made[part], part
    for before, now in zip(kept["searches"], made["searches"], strict=True):
        assert before["pose"] == now["pose"]
        assert len(before["found"]) == len(now["found"]) == (now["pose"] is not None)
        assert [len(looks) for looks in before["steps"]] == [len(looks) for looks in now["steps"]]
        # Of two crops of the grid that see one face equally well, rounding decides which leads to it.
        looks, now_looks = (
            np.array([*(look for step in one["steps"] for look in step), *one["found"]]) for one in (before, now)
        )
        assert (np.abs(looks - now_looks).max(axis=1) < 0.02 * looks[:, 2]).all()


@pytest.mark.slow
def test_a_call(make: ModuleType) -> None:
    assert json.loads((FOLDER / "call.json").read_text()) == make.call()
    kept, made = (FOLDER / "call.motion").read_bytes(), make.packets()
    assert len(kept) == len(made) == PACKET_BYTES * len(make.performance())
    assert headers(kept) == headers(made)
    assert np.abs(motion(kept) - motion(made)).max() < 1e-4 + 2**-9


def headers(track: bytes) -> list[bytes]:
    return [track[at : at + 8] for at in range(0, len(track), PACKET_BYTES)]


def motion(track: bytes) -> NDArray[np.float32]:
    return np.frombuffer(track, "<f2").reshape(-1, PACKET_BYTES // 2)[:, 4:].astype(np.float32)
