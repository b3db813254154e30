"""The two fits, and how well a voice predicts the lips of people that it was not fitted on. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mien_encoder.voice_mouth import HOP_S, VoiceMouth
from mien_shared.keypoints import FaceKeypoint
from mien_voice_mouth.clips import Array, SpokenClip

#: Keypoints that a mouth moves.
MOVED = [
    FaceKeypoint.UPPER_LIP,
    FaceKeypoint.LOWER_LIP,
    FaceKeypoint.CHIN,
    FaceKeypoint.LEFT_CHEEK,
    FaceKeypoint.RIGHT_CHEEK,
]
_MIRRORED = [1, 0, 3, 2, 4, 5, 6, 7, 9, 8]
#: A row of the other side of the face: x, j01 and j10 change their sign.
_MIRROR_SIGNS = np.array([-1, 1, 1, -1, -1, 1])
_RIDGE = 0.003
#: Range of loudness below the usual one, and the attack and release of a level meter, as voice_mouth.py has them.
_RANGE_DB, _OPENS_S, _SHUTS_S = 60.0, 0.015, 0.045


def mouth_direction(clips: Sequence[SpokenClip]) -> Array:
    """(10, 6), what an opening of 1 adds to the motion of a shut mouth: least squares, the same on both sides."""
    still = np.tile([0, 0, 1, 0, 0, 1], (10, 1))
    slopes = []
    for clip in clips:
        change = (clip.motion - still).reshape(len(clip.motion), -1)
        slopes.append((clip.opening @ change / (clip.opening @ clip.opening)).reshape(10, 6))
    mean = np.mean(slopes, axis=0)
    even = (mean + mean[_MIRRORED] * _MIRROR_SIGNS) / 2
    direction = np.zeros((10, 6))
    direction[MOVED] = even[MOVED]
    return direction


def voice_weights(clips: Sequence[SpokenClip]) -> tuple[Array, float]:
    """The weights of the bands, and the rest of the linear prediction of the opening: ridge regression."""
    loudness = np.concatenate([_at_frames(clip, _against_usual(clip)) for clip in clips])
    opening = np.concatenate([clip.opening for clip in clips])
    mean = loudness.mean(axis=0)
    centred = loudness - mean
    normal = centred.T @ centred + _RIDGE * len(centred) * np.eye(centred.shape[1])
    weights: Array = np.linalg.solve(normal, centred.T @ (opening - opening.mean()))
    return weights, float(opening.mean() - mean @ weights)


def held_out(clips: Sequence[SpokenClip]) -> dict[str, tuple[float, float]]:
    """For each person the mean correlation with the opening of the bands, fitted on the others, and of the level."""
    people = sorted({clip.person for clip in clips})
    found = {}
    for person in people:
        weights, _ = voice_weights([clip for clip in clips if clip.person != person])
        own = [clip for clip in clips if clip.person == person]
        bands = [_correlation(clip, _followed(_against_usual(clip) @ weights)) for clip in own]
        levels = [_correlation(clip, _followed(_level(clip))) for clip in own]
        found[person] = float(np.mean(bands)), float(np.mean(levels))
    return found


def as_shipped(clip: SpokenClip) -> float:
    """The correlation of what mien_encoder.voice_mouth makes of the voice, with its gate, after one hearing."""
    mouth = VoiceMouth()
    for number, bands in enumerate(clip.bands_db):
        mouth.hear(bands, number * HOP_S)
    begin_s = len(clip.bands_db) * HOP_S
    openings = []
    for number, bands in enumerate(clip.bands_db):
        mouth.hear(bands, begin_s + number * HOP_S)
        openings.append(mouth.opening(begin_s + number * HOP_S))
    return _correlation(clip, np.array(openings))


def _level_db(clip: SpokenClip) -> Array:
    level: Array = 10 * np.log10((10 ** (clip.bands_db / 10)).sum(axis=1))
    return level


def _level(clip: SpokenClip) -> Array:
    level_db = _level_db(clip)
    return np.clip((level_db - _usual(level_db)) / _RANGE_DB + 1, 0, 1.5)


def _against_usual(clip: SpokenClip) -> Array:
    """(M, 3), each band's loudness against the usual one, 1 where it is as loud."""
    return np.clip((clip.bands_db - _usual(_level_db(clip))[:, None]) / _RANGE_DB + 1, 0, 1.5)


def _usual(level_db: Array) -> Array:
    """The usual loudness, as the sender learns it: heard once before, so that short clips do not begin with a guess."""
    mouth, usual = VoiceMouth(), []
    for level in np.concatenate([level_db, level_db]):
        mouth.hear([level, -100.0, -100.0], 0.0)
        usual.append(mouth.usual_db)
    return np.array(usual[len(level_db) :])


def _followed(values: Array) -> Array:
    """The values as a mouth follows them."""
    followed, before = [], 0.0
    for now in values:
        before += (now - before) * (1 - np.exp(-HOP_S / (_OPENS_S if now > before else _SHUTS_S)))
        followed.append(before)
    return np.array(followed)


def _at_frames(clip: SpokenClip, values: Array) -> Array:
    times_s = HOP_S * np.arange(1, len(values) + 1)
    return np.stack([np.interp(clip.times_s, times_s, column) for column in values.T], axis=1)


def _correlation(clip: SpokenClip, values: Array) -> float:
    return float(np.corrcoef(_at_frames(clip, values[:, None])[:, 0], clip.opening)[0, 1])
