"""Labelled sets: the folders of plain arrays that training reads. This module does not need torch.

`python -m mien_landmarks label` and `python -m mien_training.synthetic` write them:

frames.npy (N, S, S, 3) uint8, keypoints.npy (N, 10, 6) float32, meta.json with identity and kind. Files with more
knowledge of the motion are optional: landmarks.npy (N, 478, 2), NaN where a landmark is unknown, or, for stills that
were moved, lookups.npy (N, 96, 96, 3): the place in the set's first frame that each place was taken from, and the share
taken.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Side of the maps in lookups.npy: dense motion's resolution for a picture of 384.
LOOKUP_SIDE = 96
NUM_LANDMARKS = 478


class DatasetError(ValueError):
    """A folder holds no labelled set to use, or a set is damaged; the text names it."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One clip, still or synthetic sequence. frames: (N, S, S, 3) uint8. keypoints: (N, 10, 6) float32.

    landmarks: (N, 478, 2) float32. lookups: (N, LOOKUP_SIDE, LOOKUP_SIDE, 3) float16. None if the set does not have
    them.
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
        """Read a folder. Raises DatasetError, which names the defect."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
            frames = np.load(folder / "frames.npy", mmap_mode="r")
            keypoints = np.load(folder / "keypoints.npy")
            landmarks, lookups = _optional(folder / "landmarks.npy"), _optional(folder / "lookups.npy")
            labelled = cls(folder.name, str(meta["identity"]), str(meta["kind"]), frames, keypoints, landmarks, lookups)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"{folder.name} is not a labelled set: {error}") from error
        count = len(frames)
        if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise DatasetError(f"{folder.name}: frames must be (N, S, S, 3) uint8, not {frames.shape} {frames.dtype}")
        if keypoints.shape != (count, 10, 6):
            raise DatasetError(f"{folder.name}: keypoints must be ({count}, 10, 6), not {keypoints.shape}")
        if not np.isfinite(keypoints).all():
            raise DatasetError(f"{folder.name}: a keypoint is not finite")
        if landmarks is not None and landmarks.shape != (count, NUM_LANDMARKS, 2):
            raise DatasetError(f"{folder.name}: landmarks must be ({count}, {NUM_LANDMARKS}, 2), not {landmarks.shape}")
        if lookups is not None and lookups.shape != (count, LOOKUP_SIDE, LOOKUP_SIDE, 3):
            wanted = (count, LOOKUP_SIDE, LOOKUP_SIDE, 3)
            raise DatasetError(f"{folder.name}: lookups must be {wanted}, not {lookups.shape}")
        return labelled


def _optional(path: Path) -> Any:
    return np.load(path) if path.exists() else None


def write_set(
    folder: Path, arrays: Mapping[str, np.ndarray[Any, Any]], *, identity: str, kind: str, source: str
) -> None:
    """Write one labelled set atomically; it replaces an older one. arrays: by file name without .npy."""
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
    """validation: identities that are never trained on. left_out: names of sets that are not used at all."""

    validation: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def is_validation(self, labelled: LabelledSet) -> bool:
        return labelled.identity in self.validation


def open_sets(folder: Path, split: Split) -> tuple[list[LabelledSet], list[LabelledSet]]:
    """(training, validation) sets of a folder. Raises DatasetError, also if there is no set to train on."""
    sets = [LabelledSet.open(meta.parent) for meta in sorted(folder.glob("*/meta.json"))]
    sets = [labelled for labelled in sets if labelled.name not in split.left_out]
    training = [labelled for labelled in sets if not split.is_validation(labelled)]
    if not training:
        raise DatasetError(f"{folder.name} holds no labelled set to train on")
    return training, [labelled for labelled in sets if split.is_validation(labelled)]
