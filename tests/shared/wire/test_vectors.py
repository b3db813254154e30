"""The vectors that a port in another language is tested against are what our own code computes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from js.modules import load as load_module

from mien_encoder.judgement import Judgement, JudgementPolicy, l2
from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother
from mien_encoder.voice_mouth import VoiceBands, VoiceMouth
from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import Keypoints
from mien_shared.mouth import opened
from mien_shared.reactions import REACTIONS, Reactions
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


def test_a_mouth_and_a_camera_switched_off_and_on() -> None:
    vectors = load("mouth.json")
    for entry in vectors["openings"]:
        shown = opened(read(vectors["moving"]), entry["opening"]).rows()
        np.testing.assert_allclose(shown, entry["motion"], atol=2e-4)
    judgement = Judgement(read(vectors["source"]), seed=vectors["seed"])
    for frame in vectors["frames"]:
        found = None if frame["found"] is None else read(frame["found"])
        judged = judgement.judge(found, frame["time_s"], frame["mouth"])
        np.testing.assert_allclose(judged.motion.rows(), frame["motion"], atol=2e-4)


def test_how_far_a_voice_opens_the_mouth() -> None:
    vectors = load("voice_mouth.json")
    for series in vectors["series"]:
        bands, mouth = VoiceBands(series["rate_hz"]), VoiceMouth()
        measured = bands.push(make_vectors().voice(series["rate_hz"], vectors["parts"]))
        np.testing.assert_allclose(measured, series["bands_db"], atol=0.01)
        for number, (levels, opening) in enumerate(zip(measured, series["openings"], strict=True)):
            time_s = vectors["begins_s"] + number * vectors["hop_s"]
            mouth.hear(levels, time_s)
            assert mouth.opening(time_s) == pytest.approx(opening, abs=1e-3)
        for time_s, opening in series["after"]:
            assert mouth.opening(time_s) == pytest.approx(opening, abs=1e-3)


def test_reactions() -> None:
    vectors = load("reactions.json")
    assert vectors["names"] == list(REACTIONS)
    moving = read(vectors["moving"])
    for call in vectors["calls"]:
        reactions, waiting = Reactions(), list(call["begun"])
        for time_s, motion in call["shown"]:
            while waiting and waiting[0][1] <= time_s:
                reactions.begin(*waiting.pop(0))
            np.testing.assert_allclose(reactions.applied_to(moving, time_s).rows(), motion, atol=2e-4)


def make_vectors() -> ModuleType:
    return load_module(FOLDER / "make.py")
