from __future__ import annotations

import math

import numpy as np
import pytest

from mien_evaluation.metrics import ReadFace, Scores, Tally, l1, mean_scores, rounded


def _grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def _face(x: float, y: float, *embedding: float) -> ReadFace:
    return ReadFace(np.tile([x, y], (68, 1)), np.array(embedding) if embedding else None)


def test_l1_is_of_pictures_in_0_to_1() -> None:
    assert l1(_grey(0), _grey(255)) == 1.0
    assert l1(_grey(255), _grey(0)) == 1.0, "bytes do not wrap"
    assert l1(_grey(100), _grey(151)) == pytest.approx(0.2)


def test_l1_of_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"^pictures of different shapes, \(4, 4, 3\) and \(2, 2, 3\), cannot be"):
        l1(_grey(0), np.zeros((2, 2, 3), np.uint8))


def test_akd_and_aed_are_euclidean_and_beside_them_stands_what_foms_script_prints() -> None:
    tally = Tally()
    tally.add(_grey(0), _grey(51), _face(3, 4, 0.0, 0.6), _face(0, 0, 0.8, 0.0))
    tally.add(_grey(0), _grey(0), _face(0, 0, 1.0, 0.0), _face(0, 0, 1.0, 0.0))
    scores = tally.scores()
    assert scores.frames == 2
    assert scores.l1 == pytest.approx(0.1)
    assert scores.akd == pytest.approx(2.5)
    assert scores.akd_per_coordinate == pytest.approx(3.5 / 2)
    assert scores.aed == pytest.approx(0.5)
    assert scores.aed_squared == pytest.approx(0.5)


def test_a_frame_without_landmarks_counts_for_l1_alone() -> None:
    tally = Tally()
    tally.add(_grey(0), _grey(51), None, _face(1, 1, 1.0))
    tally.add(_grey(0), _grey(0), _face(1, 1, 1.0), None)
    scores = tally.scores()
    assert (scores.frames, scores.unread) == (2, 1), "a driving frame that cannot be read blames no generator"
    assert scores.l1 == pytest.approx(0.1)
    assert scores.akd is scores.aed is None


def test_without_embeddings_there_is_no_aed() -> None:
    tally = Tally()
    tally.add(_grey(0), _grey(0), _face(0, 3), _face(0, 0))
    assert tally.scores().akd == 3
    assert tally.scores().aed is None


def test_nothing_measured_is_none_not_nan() -> None:
    assert Tally().scores() == Scores(0, 0, None, None, None, None, None)


def test_a_mean_counts_each_score_once_and_leaves_out_what_was_not_measured() -> None:
    long = Scores(900, 2, 0.1, 1.0, 0.5, None, None)
    short = Scores(100, 0, 0.3, 3.0, 1.5, 0.25, 0.1)
    mean = mean_scores([long, short])
    assert (mean.frames, mean.unread, mean.aed) == (1000, 2, 0.25)
    assert mean.l1 == pytest.approx(0.2)
    assert mean.akd == pytest.approx(2.0)


def test_json_has_five_decimals_and_null() -> None:
    told = rounded(Scores(3, 0, 1 / 3, math.pi, 2.0, None, None))
    assert told == {
        "frames": 3,
        "unread": 0,
        "l1": 0.33333,
        "akd": 3.14159,
        "akd_per_coordinate": 2.0,
        "aed": None,
        "aed_squared": None,
    }
