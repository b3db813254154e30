"""Labelled sets, the folders of plain arrays that training reads. Nothing here needs torch.

`python -m mien_landmarks label` and `python -m mien_training.synthetic` write them:

frames.npy (N, S, S, 3) uint8, keypoints.npy (N, 10, 6) float32, meta.json with identity and kind. What else is known
of its motion lies beside them: landmarks.npy (N, 478, 2), NaN where there is none, or, of stills that were moved,
lookups.npy (N, 96, 96, 3): where each place was taken from in the set's first frame, and how much of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Side of the maps of lookups.npy: what dense motion works at for a picture of 384.
LOOKUP_SIDE = 96
NUM_LANDMARKS = 478


class DatasetError(ValueError):
    """A folder that holds no labelled sets, or one that is damaged; the text names it."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One clip, still or synthetic sequence. frames: (N, S, S, 3) uint8. keypoints: (N, 10, 6) float32.

    landmarks: (N, 478, 2) float32. lookups: (N, LOOKUP_SIDE, LOOKUP_SIDE, 3) float16. None where the set has none.
    """

    name: str
    identity: str
    kind: str
    frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    keypoints: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
    lookups: np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None = None

    @classmethod
    def open(cls, folder: Path) -> LabelledSet:
        """Raises DatasetError naming what is wrong."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
            frames = np.load(folder / "frames.npy", mmap_mode="r")
            keypoints = np.load(folder / "keypoints.npy")
            landmarks, lookups = _optional(folder / "landmarks.npy"), _optional(folder / "lookups.npy")
            labelled = cls(folder.name, str(meta["identity"]), str(meta["kind"]), frames, keypoints, landmarks, lookups)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"{folder.name} is no labelled set: {error}") from error
        count = len(frames)
        if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise DatasetError(f"{folder.name}: frames are (N, S, S, 3) uint8, not {frames.shape} {frames.dtype}")
        if keypoints.shape != (count, 10, 6):
            raise DatasetError(f"{folder.name}: keypoints are ({count}, 10, 6), not {keypoints.shape}")
        if not np.isfinite(keypoints).all():
            raise DatasetError(f"{folder.name}: a keypoint is not finite")
        if landmarks is not None and landmarks.shape != (count, NUM_LANDMARKS, 2):
            raise DatasetError(f"{folder.name}: landmarks are ({count}, {NUM_LANDMARKS}, 2), not {landmarks.shape}")
        if lookups is not None and lookups.shape != (count, LOOKUP_SIDE, LOOKUP_SIDE, 3):
            wanted = (count, LOOKUP_SIDE, LOOKUP_SIDE, 3)
            raise DatasetError(f"{folder.name}: lookups are {wanted}, not {lookups.shape}")
        return labelled


def _optional(path: Path) -> Any:
    return np.load(path) if path.exists() else None


def write_set(
    folder: Path, arrays: Mapping[str, np.ndarray[Any, Any]], *, identity: str, kind: str, source: str
) -> None:
    """Write one labelled set, whole or not at all; arrays by their files' names. An older one gives way."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(partial / f"{name}.npy", array)
    (partial / "meta.json").write_text(json.dumps({"identity": identity, "kind": kind, "source": source}) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@dataclass(frozen=True, slots=True)
class Split:
    """Who is never trained on, by identity; and which sets are left out altogether, by name."""

    validation: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def is_validation(self, labelled: LabelledSet) -> bool:
        return labelled.identity in self.validation


def open_sets(folder: Path, split: Split) -> tuple[list[LabelledSet], list[LabelledSet]]:
    """(training, validation) of a folder's labelled sets. Raises DatasetError, also where nothing is to train on."""
    sets = [LabelledSet.open(meta.parent) for meta in sorted(folder.glob("*/meta.json"))]
    sets = [labelled for labelled in sets if labelled.name not in split.left_out]
    training = [labelled for labelled in sets if not split.is_validation(labelled)]
    if not training:
        raise DatasetError(f"{folder.name} holds no labelled set to train on")
    return training, [labelled for labelled in sets if split.is_validation(labelled)]
