"""The fits of the mouth find what a clip was made of, and a better voice wins over people that it was not fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mien_encoder.voice_mouth import HOP_S
from mien_shared.keypoints import FaceKeypoint
from mien_voice_mouth.clips import SpokenClip, person_of
from mien_voice_mouth.fit import as_shipped, held_out, mouth_direction, voice_weights

DIRECTION = np.zeros((10, 6))
DIRECTION[FaceKeypoint.LOWER_LIP] = [0, 0.06, -0.02, 0, 0, 0.04]
DIRECTION[FaceKeypoint.LEFT_CHEEK] = [0.01, 0, 0, -0.003, 0.01, 0]
DIRECTION[FaceKeypoint.RIGHT_CHEEK] = [-0.01, 0, 0, 0.003, -0.01, 0]


def clip(person: str, seed: int) -> SpokenClip:
    """A made clip: the mouth follows the middle band alone; the others are loud for reasons of their own."""
    random = np.random.default_rng(seed)
    hops = 400
    smooth = np.convolve(random.normal(size=hops + 20), np.ones(10) / 3.2, "valid")[:hops]
    opening = np.clip(0.5 + 0.3 * smooth, 0, 1.2)
    bands_db = np.stack([random.uniform(-45, -20, hops), -60 + 40 * opening, random.uniform(-50, -25, hops)], axis=1)
    times_s = np.asarray(HOP_S * np.arange(1, hops + 1), np.float64)
    still = np.tile([0.0, 0, 1, 0, 0, 1], (hops, 10, 1))
    motion = still + opening[:, None, None] * DIRECTION
    motion[:, FaceKeypoint.LEFT_BROW, 1] += 0.1 * opening  # brows do not belong to the mouth
    return SpokenClip(person, times_s, motion, opening, bands_db)


CLIPS = [clip(person, seed) for seed, person in enumerate(["anna", "anna", "ben", "cleo"])]


def test_the_direction_is_that_of_the_clips() -> None:
    np.testing.assert_allclose(mouth_direction(CLIPS), DIRECTION, atol=1e-9)


def test_the_band_that_moves_the_mouth_has_the_weight() -> None:
    weights, _ = voice_weights(CLIPS)
    assert weights[1] > 5 * max(abs(weights[0]), abs(weights[2]))


def test_bands_beat_the_level_where_other_bands_are_loud_for_nothing() -> None:
    found = held_out(CLIPS)
    assert sorted(found) == ["anna", "ben", "cleo"]
    for bands, level in found.values():
        assert bands > level + 0.2
        assert bands > 0.8
    assert as_shipped(CLIPS[0]) > 0.5


@pytest.mark.parametrize(
    ("name", "person"), [("obama_wa_03.mp4", "obama"), ("grid_bbaf2n.mpg", "grid_bbaf2n"), ("model_b_2.mp4", "model_b")]
)
def test_who_speaks(name: str, person: str) -> None:
    assert person_of(Path(name)) == person
