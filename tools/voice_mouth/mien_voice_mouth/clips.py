"""Clips with sound as the fits need them: the lips frame by frame with the head held still, and the voice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mien_encoder.voice_mouth import VoiceBands
from mien_judgement.clip import found_in, pictures_of
from mien_shared.keypoints import FaceKeypoint

Array = NDArray[np.float64]

RATE_HZ = 48_000
#: Keypoints that speech does not move: the head's motion is what they do together.
_STEADY = [
    FaceKeypoint.LEFT_BROW,
    FaceKeypoint.RIGHT_BROW,
    FaceKeypoint.LEFT_EYE,
    FaceKeypoint.RIGHT_EYE,
    FaceKeypoint.NOSE,
]
#: Share of the frames with the lips closest together, whose mean is the closed mouth.
_SHUT_SHARE = 0.05
#: In these clips the sound is later than the picture by this much; measured by their own correlation.
_SOUND_LATE_S = {"obama": 0.1}


@dataclass(frozen=True, slots=True, eq=False)
class SpokenClip:
    """One clip.

    person: who speaks. times_s: (N,), of the frames, by the clock of the sound. motion: (N, 10, 6), relative to the
    closed mouth, without the head's motion; rows as in motion packets. opening: (N,), how much further apart the lips
    are than shut; 1 is the clip's 95th percentile. bands_db: (M, 3), the voice every HOP_S, as a sender measures it.
    """

    person: str
    times_s: Array
    motion: Array
    opening: Array
    bands_db: Array


def person_of(clip: Path) -> str:
    """obama_wa_01 and obama_wa_02 are one person, each grid_… and each model_… another."""
    first, *rest = clip.stem.split("_")
    return first if first == "obama" else f"{first}_{rest[0]}"


def spoken(clip: Path) -> SpokenClip:
    """Track a clip and measure its voice. Takes about a second for each second of it."""
    found = found_in(pictures_of(clip)).longest_with_a_face()
    gap = found.rows[:, FaceKeypoint.LOWER_LIP, 1] - found.rows[:, FaceKeypoint.UPPER_LIP, 1]
    shut = found.rows[np.argsort(gap)[: max(3, round(len(gap) * _SHUT_SHARE))]].mean(axis=0)
    still = _with_the_head_still(found.rows, shut)
    opening = still[:, FaceKeypoint.LOWER_LIP, 1] - still[:, FaceKeypoint.UPPER_LIP, 1]
    opening -= shut[FaceKeypoint.LOWER_LIP, 1] - shut[FaceKeypoint.UPPER_LIP, 1]
    late_s = _SOUND_LATE_S.get(person_of(clip), 0.0)
    return SpokenClip(
        person_of(clip),
        found.times_s + late_s,
        _relative(still, shut),
        opening / np.percentile(opening, 95),
        np.array(VoiceBands(RATE_HZ).push(sound_of(clip))),
    )


def sound_of(clip: Path) -> Array:
    """The sound of a clip, mono, 48 kHz, -1 to 1."""
    with av.open(str(clip)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        parts = []
        for frame in container.decode(container.streams.audio[0]):
            frame.pts = None
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float64)


def _with_the_head_still(rows: Array, shut: Array) -> Array:
    """Undo, in each frame, the similarity that moves the steady keypoints from where they are with the mouth shut."""
    home = shut[_STEADY, :2]
    still = rows.copy()
    for row in still:
        there = row[_STEADY, :2]
        from_z, to_z = ((points - points.mean(axis=0)) @ [1, 1j] for points in (home, there))
        turn = (np.conj(from_z) @ to_z) / (np.conj(from_z) @ from_z)
        back = np.linalg.inv([[turn.real, -turn.imag], [turn.imag, turn.real]])
        row[:, :2] = (row[:, :2] - there.mean(axis=0)) @ back.T + home.mean(axis=0)
        row[:, 2:] = (back @ row[:, 2:].reshape(-1, 2, 2)).reshape(-1, 4)
    return still


def _relative(rows: Array, shut: Array) -> Array:
    jacobians = rows[:, :, 2:].reshape(len(rows), -1, 2, 2) @ np.linalg.inv(shut[:, 2:].reshape(-1, 2, 2))
    return np.concatenate([rows[:, :, :2] - shut[:, :2], jacobians.reshape(len(rows), -1, 4)], axis=2)
