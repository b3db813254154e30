"""Sources of keypoints: the system's encoder, the detector of an imported model, or labels stored with a clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mien_encoder.crop import CropSquare, cut
from mien_encoder.finder import PatientFinder
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder
from mien_encoder.smoothing import Smoother
from mien_encoder.tracker import LOST_PRESENCE, FaceTracker
from mien_evaluation.clips import ClipError, clip_length, clip_pictures, clip_rate
from mien_evaluation.reenactment import DrivingFrame
from mien_generator.face.contract import RgbArray
from mien_generator.face.picture import scaled
from mien_shared.keypoints import Keypoints

#: Returns the face's crop in a whole picture, or None if there is no face.
Framing = Callable[[RgbArray], CropSquare | None]


class KeypointFinder(Protocol):
    """Finds keypoints in crops."""

    def find(self, pictures: Sequence[RgbArray]) -> Sequence[Keypoints | None]:
        """The keypoints for each (256, 256, 3) crop, or None if it has no face."""


class EncoderFinder:
    """KeypointFinder on the encoder that senders run."""

    def __init__(self, encoder: KeypointEncoder) -> None:
        self.encoder = encoder

    def find(self, pictures: Sequence[RgbArray]) -> list[Keypoints | None]:
        """The keypoints for each crop; None if the encoder's presence is so low that a tracker drops the face."""
        return [
            face.keypoints if face.presence >= LOST_PRESENCE else None for face in self.encoder.encode_all(pictures)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """A face in a frame: its crop in the frame's pixels, and its keypoints in that crop."""

    square: CropSquare
    keypoints: Keypoints


def tracked(encoder: KeypointEncoder) -> Framing:
    """The crop with which a sender's tracker starts, by the framing convention."""

    def framing(rgb: RgbArray) -> CropSquare | None:
        face = FaceTracker(encoder, PatientFinder(encoder)).find(rgb, 0.0)
        return face.box if face is not None else None

    return framing


def whole(rgb: RgbArray) -> CropSquare:
    """The largest centred square: for clips that are already face crops, as FOMM prepares VoxCeleb."""
    height, width = rgb.shape[:2]
    size = min(height, width)
    return CropSquare((width - size) / 2, (height - size) / 2, size)


def found_in(rgb: RgbArray, square: CropSquare, finder: KeypointFinder, name: str) -> FoundFace:
    """The face of one picture; raises ClipError if the crop has no face."""
    (keypoints,) = finder.find([cut(rgb, square, CROP_SIZE)])
    if keypoints is None:
        raise ClipError(f"no face in the crop of {name}")
    return FoundFace(square, keypoints)


def followed(path: Path, tracker: FaceTracker, smoother: Smoother) -> list[FoundFace | None]:
    """The face of every frame, as a sender's tracker finds it, smoothed. The crop follows a head that leaves it.

    smoother: a smoother that adds no delay.
    """
    rate = clip_rate(path)
    found: list[FoundFace | None] = []
    for number, rgb in enumerate(clip_pictures(path)):
        time_s = float(number / rate)
        face = tracker.find(rgb, time_s)
        if face is None:
            smoother.reset()
            found.append(None)
            continue
        rows = smoother.filter(face.keypoints.rows().astype(np.float64), time_s)
        found.append(FoundFace(face.box, Keypoints.from_rows(rows)))
    return found


def held(path: Path, square: CropSquare, finder: KeypointFinder) -> list[FoundFace | None]:
    """The face of every frame, all in the same crop."""
    found: list[FoundFace | None] = []
    for rgb in clip_pictures(path):
        (keypoints,) = finder.find([cut(rgb, square, CROP_SIZE)])
        found.append(FoundFace(square, keypoints) if keypoints is not None else None)
    return found


class FilmedClip:
    """A DrivingClip from a video or a folder of pictures. The crop is placed on the first face and then stays."""

    def __init__(self, path: Path, size: int, finder: KeypointFinder, framing: Framing) -> None:
        self._path = path
        self._size = size
        self._finder = finder
        self._framing = framing

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def identity(self) -> str:
        return identity_of(self._path)

    def count(self) -> int:
        """Raises ClipError."""
        return clip_length(self._path)

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        """The frames from the first one with a face on; raises ClipError if there is no face."""
        square: CropSquare | None = None
        to_skip = 0
        for rgb in clip_pictures(self._path):
            if to_skip:
                to_skip -= 1
                continue
            started = square is not None
            square = square or self._framing(rgb)
            if square is None:
                continue
            crop = cut(rgb, square, self._size)
            small = crop if self._size == CROP_SIZE else cut(rgb, square, CROP_SIZE)
            (keypoints,) = self._finder.find([small])
            if keypoints is None and not started:  # the framing found a face, the keypoint finder did not
                square = None
                continue
            to_skip = every - 1
            yield DrivingFrame(crop, keypoints)
        if square is None:
            raise ClipError(f"no face in {self.name}")


class LabelledClip:
    """A DrivingClip from a labelled set, as `mien_landmarks label` writes it: frames.npy and keypoints.npy, meta.json.

    Its keypoints come from a landmark detector. One crop, framed by the convention, is used for the whole set.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """Raises ClipError if the folder is not a labelled set."""
        self._size = size
        self._name = folder.name
        try:
            self._identity = str(json.loads((folder / "meta.json").read_bytes())["identity"])
            self._frames = np.load(folder / "frames.npy", mmap_mode="r")
            self._keypoints = np.load(folder / "keypoints.npy")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ClipError(f"{folder.name} is not a labelled set") from error
        if not len(self._frames) or self._keypoints.shape != (len(self._frames), 10, 6):
            shape = self._keypoints.shape
            raise ClipError(f"{folder.name}: keypoints of shape {shape} do not match {len(self._frames)} frames")

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._identity

    def count(self) -> int:
        return len(self._frames)

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        for picture, rows in zip(self._frames[::every], self._keypoints[::every], strict=True):
            yield DrivingFrame(scaled(np.array(picture), self._size), Keypoints.from_rows(rows))


def identity_of(path: Path) -> str:
    """The person that a clip shows, derived from its name.

    In FOMM's VoxCeleb layout (id10280#videoid#from#to.mp4) this is the part before the first #. Otherwise it is the
    name without a number or a single letter at its end: talk_01.mp4, talk_02.mp4 and talk_b.mp4 show one person.
    """
    name = path.name if path.is_dir() else path.stem
    if "#" in name:
        return name.split("#", 1)[0]
    stem, _, end = name.rpartition("_")
    return stem if stem and (end.isdecimal() or (len(end) == 1 and end.isalpha())) else name
