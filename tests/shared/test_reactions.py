"""Reactions: they begin and end where the face was, never jump, and add to whatever it does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import EYES, FaceKeypoint, Keypoints
from mien_shared.reactions import REACTIONS, Reactions, UnknownReaction

REST = Keypoints.at_rest()
FRAME_S = 1 / 30


def played(name: str, seconds: float = 4.0) -> list[Keypoints]:
    """A reaction from 1 s on, frame by frame, over a face at rest."""
    reactions = Reactions()
    reactions.begin(name, 1.0)
    return [reactions.applied_to(REST, frame * FRAME_S) for frame in range(30, round(30 * (1 + seconds)))]


def furthest(one: Keypoints, other: Keypoints) -> float:
    return float(np.abs(one.rows() - other.rows()).max())


@pytest.mark.parametrize("name", REACTIONS)
def test_a_reaction_begins_and_ends_at_rest_and_never_jumps(name: str) -> None:
    shown = played(name)
    assert shown[0] == REST
    assert shown[-1] is REST, "after its end nothing is computed"
    steps = [furthest(one, other) for one, other in itertools.pairwise(shown)]
    assert max(steps) < 0.055, "two hundredths of the picture from one frame to the next"
    assert max(furthest(one, REST) for one in shown) > 0.03, "it can be seen"
    # Slope 0 at both ends: the first and the last step are far below the greatest.
    moving = [step for step in steps if step > 0]
    assert moving[0] < 0.3 * max(steps) and moving[-1] < 0.3 * max(steps)


def test_what_each_does() -> None:
    nose, lip = FaceKeypoint.NOSE, FaceKeypoint.LOWER_LIP
    nod, shake, smile, laugh, hand = (played(name) for name in ("nod", "shake", "smile", "laugh", "hand"))
    assert max(one.points[nose, 1] for one in nod) > 0.07
    turns = [float(one.points[nose, 0]) for one in shake]
    assert min(turns) < -0.05 and max(turns) > 0.05
    assert max(one.jacobians[lip][0, 0] for one in smile) > 1.15
    assert min(one.jacobians[EYES[0]][1, 1] for one in smile) < 0.85
    opened = [float(one.points[lip, 1] - one.points[FaceKeypoint.UPPER_LIP, 1]) for one in laugh]
    assert max(opened) > 0.03
    assert min(one.points[FaceKeypoint.LEFT_BROW, 1] for one in hand) < -0.04


def test_it_adds_to_what_the_face_does() -> None:
    moving = DefaultMotion(REST).at(5.3)
    reactions = Reactions()
    reactions.begin("nod", 0.0)
    shown = reactions.applied_to(moving, 0.3)
    assert shown.points[FaceKeypoint.NOSE, 0] == moving.points[FaceKeypoint.NOSE, 0]
    assert shown.points[FaceKeypoint.NOSE, 1] > moving.points[FaceKeypoint.NOSE, 1] + 0.05


def test_one_that_plays_does_not_begin_again() -> None:
    once, twice = Reactions(), Reactions()
    once.begin("shake", 0.0)
    twice.begin("shake", 0.0)
    twice.begin("shake", 0.7)
    for time_s in np.arange(0, 3, FRAME_S):
        assert once.applied_to(REST, time_s) == twice.applied_to(REST, time_s)
    twice.begin("shake", 3.0)
    assert twice.applied_to(REST, 3.2) != REST


def test_all_at_once_stay_within_what_a_face_can_do() -> None:
    reactions = Reactions()
    shown = []
    for frame in range(120):
        if frame < len(REACTIONS):
            reactions.begin(REACTIONS[frame], frame * FRAME_S)
        shown.append(reactions.applied_to(REST, frame * FRAME_S))
    assert max(furthest(one, REST) for one in shown) < 0.35
    assert max(furthest(one, other) for one, other in itertools.pairwise(shown)) < 0.08


def test_an_unknown_one_is_named() -> None:
    with pytest.raises(UnknownReaction, match="there is no reaction 'wink': choose one of nod, shake, smile"):
        Reactions().begin("wink", 0.0)
