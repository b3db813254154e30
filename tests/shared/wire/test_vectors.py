"""The vectors that a port in another language is tested against are what our own code computes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien_encoder.judgement import Judgement, JudgementPolicy, l2
from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother
from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags

FOLDER = Path(__file__).parent / "vectors"


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return loaded


def read(rows: list[list[float | None]]) -> Keypoints:
    return Keypoints.from_rows([[math.nan if x is None else x for x in row] for row in rows])


def test_l2() -> None:
    vectors = load("l2.json")
    for entry in vectors["l2"]:
        assert l2(read(entry["motion"]), vectors["alpha"], vectors["beta"]) == pytest.approx(entry["l2"], abs=1e-3)


def test_a_call_in_which_everything_happens() -> None:
    vectors = load("judgement.json")
    judgement = Judgement(read(vectors["source"]), JudgementPolicy(**vectors["policy"]), vectors["seed"])
    for frame in vectors["frames"]:
        found = None if frame["found"] is None else read(frame["found"])
        judged = judgement.judge(found, frame["time_s"])
        where = f"at {frame['time_s']} s"
        assert (judged.verdict.value, judged.flags) == (frame["verdict"], frame["flags"]), where
        assert judged.l2 == (None if frame["l2"] is None else pytest.approx(frame["l2"], abs=1e-3)), where
        np.testing.assert_allclose(judged.motion.rows(), frame["motion"], atol=2e-4, err_msg=where)


def test_the_call_shows_every_verdict_and_flag() -> None:
    frames = load("judgement.json")["frames"]
    assert {frame["verdict"] for frame in frames} == {"accepted", "rejected", "lost"}
    new, default = MotionFlags.NEW_INITIAL_FRAME, MotionFlags.DEFAULT_MOTION
    assert {frame["flags"] for frame in frames} == {0, new, default, new | default}
    assert JudgementPolicy(**load("judgement.json")["policy"]) == JudgementPolicy(), "made with what is used"


def test_default_motion() -> None:
    vectors = load("default_motion.json")
    for entry in vectors["motions"]:
        motion = DefaultMotion(read(vectors["source"]), entry["seed"]).at(entry["seconds"])
        np.testing.assert_allclose(motion.rows(), entry["motion"], atol=2e-4)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one-euro", OneEuro),
        ("savitzky-golay", SavitzkyGolay),
        ("one-euro with dead zones", lambda: DeadZones(OneEuro())),
    ],
)
def test_smoothing(name: str, make: Callable[[], Smoother]) -> None:
    vectors, smoother = load("smoothing.json"), make()
    assert smoother.delay_frames == vectors["outputs"][name]["delay_frames"]
    for entry, expected in zip(vectors["inputs"], vectors["outputs"][name]["values"], strict=True):
        smoothed = smoother.filter(np.array(entry["value"]), entry["time_s"])
        np.testing.assert_allclose(smoothed, expected, atol=2e-4)
